"""Bring together what was measured at the same time: image, odometry, other vehicles."""
from __future__ import annotations

import collections
import dataclasses
from typing import Generic, TypeVar

from av_td3_ros.settings import setting

Image = TypeVar('Image')
Odometry = TypeVar('Odometry')
Others = TypeVar('Others')
Item = TypeVar('Item')


@dataclasses.dataclass(frozen=True)
class PairingSettings:
    """Say which measurements belong together, and how long one waits for the other."""

    max_wait: float = setting(
        0.5, 'time in s of newer stamps after which an image without odometry is given up',
        minimum=1e-3, maximum=60.0)
    depth: int = setting(50, 'messages of each kind that are kept while they wait',
                         minimum=1, maximum=10000)
    tolerance: float = setting(
        0.0, 'difference in s between an image and its odometry; 0 where they share their stamp, '
        'as in a simulator', minimum=0.0, maximum=1.0)


@dataclasses.dataclass(frozen=True, slots=True)
class Pair(Generic[Image, Odometry]):
    """Hold an image, the odometry that goes with it, and the image's stamp."""

    stamp_ns: int
    image: Image
    odometry: Odometry


class _Stream(Generic[Item]):
    """The messages of one kind that wait, oldest first, and the newest stamp ever seen."""

    def __init__(self) -> None:
        self.waiting: collections.deque[tuple[int, Item]] = collections.deque()
        self.newest_ns: int | None = None

    def drop_oldest(self) -> None:
        self.waiting.popleft()


class StampPairer(Generic[Image, Odometry]):
    """
    Pair two streams of stamped messages, each in time order, one to one.

    Without a tolerance only equal stamps go together. With one, an image gets the nearest odometry
    within it, as soon as none nearer can come. Pairs come out in the order of their stamps; what
    is older than a pair that came out is given up. Time is that of the stamps, no clock is read.

    images_missed, odometry_unused: messages given up without a pair; late: messages that came
    after a newer one of their kind; stale: messages from before the last `clear`; time_jumps: how
    often stamps went back by more than max_wait, which drops all that waits.
    """

    def __init__(self, max_wait_ns: int, depth: int, tolerance_ns: int = 0) -> None:
        if max_wait_ns < 1 or depth < 1 or tolerance_ns < 0:
            raise ValueError(f'a pairer cannot wait {max_wait_ns} ns for {depth} messages with a '
                             f'tolerance of {tolerance_ns} ns')
        self._max_wait_ns = max_wait_ns
        self._depth = depth
        self._tolerance_ns = tolerance_ns
        self._images: _Stream[Image] = _Stream()
        self._odometry: _Stream[Odometry] = _Stream()
        self._drop_before_ns: int | None = None
        self.images_missed = 0
        self.odometry_unused = 0
        self.late = 0
        self.stale = 0
        self.time_jumps = 0

    @classmethod
    def from_settings(cls, settings: PairingSettings) -> StampPairer[Image, Odometry]:
        """Return an empty pairer that follows the settings."""
        return cls(round(settings.max_wait * 1e9), settings.depth,
                   round(settings.tolerance * 1e9))

    def add_image(self, stamp_ns: int, image: Image) -> list[Pair[Image, Odometry]]:
        """Take an image; return the pairs that are complete now, oldest first."""
        return self._pairs() if self._accept(self._images, stamp_ns, image) else []

    def add_odometry(self, stamp_ns: int, odometry: Odometry) -> list[Pair[Image, Odometry]]:
        """Take an odometry; return the pairs that are complete now, oldest first."""
        return self._pairs() if self._accept(self._odometry, stamp_ns, odometry) else []

    def clear(self, drop_before_ns: int | None = None) -> None:
        """
        Forget all that waits, and refuse what is stamped before `drop_before_ns` from now on.

        What came before a reset is thus never paired with what comes after it.
        """
        self._images.waiting.clear()
        self._odometry.waiting.clear()
        self._drop_before_ns = drop_before_ns

    def _accept(self, stream: _Stream[Item], stamp_ns: int, item: Item) -> bool:
        """Put a message in line; return False when it is not to be used."""
        newest = stream.newest_ns
        if newest is not None and stamp_ns <= newest:
            if newest - stamp_ns <= self._max_wait_ns:
                self.late += 1
                return False
            # The clock began anew (another bag, a restarted simulator): so does the pairing.
            self.time_jumps += 1
            self.clear()
            self._images.newest_ns = self._odometry.newest_ns = None
        stream.newest_ns = stamp_ns
        if self._drop_before_ns is not None and stamp_ns < self._drop_before_ns:
            self.stale += 1
            return False
        stream.waiting.append((stamp_ns, item))
        return True

    def _pairs(self) -> list[Pair[Image, Odometry]]:
        pairs: list[Pair[Image, Odometry]] = []
        while self._images.waiting:
            stamp_ns, image = self._images.waiting[0]
            index = self._match(stamp_ns)
            if index is not None:
                for _ in range(index):
                    self._leave_odometry()
                odometry = self._odometry.waiting[0][1]
                self._odometry.drop_oldest()
                self._images.drop_oldest()
                pairs.append(Pair(stamp_ns, image, odometry))
            elif self._is_hopeless(stamp_ns):
                self._images.drop_oldest()
                self.images_missed += 1
            else:
                break
        self._bound()
        return pairs

    def _match(self, stamp_ns: int) -> int | None:
        """Return the index of the odometry that goes with an image, None while it is not sure."""
        best: int | None = None
        best_off = self._tolerance_ns
        sure = self._waited_too_long(stamp_ns)
        for index, (other_ns, _) in enumerate(self._odometry.waiting):
            off = abs(other_ns - stamp_ns)
            if off <= best_off:
                best, best_off = index, off
            if other_ns >= stamp_ns:
                # Nearer ones cannot follow: odometry comes in time order.
                sure = True
                break
        return best if sure else None

    def _is_hopeless(self, stamp_ns: int) -> bool:
        """Return whether an image that has no match now will never have one."""
        newest = self._odometry.newest_ns
        passed = newest is not None and newest >= stamp_ns
        return passed or self._waited_too_long(stamp_ns)

    def _waited_too_long(self, stamp_ns: int) -> bool:
        newest = max(self._images.newest_ns or stamp_ns, self._odometry.newest_ns or stamp_ns)
        return newest - stamp_ns > self._max_wait_ns

    def _leave_odometry(self) -> None:
        self._odometry.drop_oldest()
        self.odometry_unused += 1

    def _bound(self) -> None:
        """Keep at most `depth` of each kind, and no odometry too old for any image."""
        while len(self._images.waiting) > self._depth:
            self._images.drop_oldest()
            self.images_missed += 1
        newest_image = self._images.newest_ns
        while self._odometry.waiting:
            oldest_ns = self._odometry.waiting[0][0]
            # Images come in time order too: none at or before the newest one is still to come.
            useless = (not self._images.waiting and newest_image is not None
                       and oldest_ns < newest_image - self._tolerance_ns)
            if not useless and len(self._odometry.waiting) <= self._depth:
                break
            self._leave_odometry()


@dataclasses.dataclass(frozen=True, slots=True)
class Measurement(Generic[Image, Odometry, Others]):
    """Hold an image, the odometry and the other vehicles (None: not measured) that go with it."""

    image: Image
    odometry: Odometry
    others: Others | None


class MeasurementPairer(Generic[Image, Odometry, Others]):
    """
    Pair images with odometry and, `with_others`, with the other vehicles of the same time.

    Two pairers in a row: odometry goes on to the images once it has met the other vehicles. Thus
    what a step is told of them belongs to its own stamp, whichever message comes first.
    """

    def __init__(self, settings: PairingSettings, with_others: bool) -> None:
        self._images: StampPairer[Image, tuple[Odometry, Others | None]] = (
            StampPairer.from_settings(settings))
        self._others: StampPairer[Odometry, Others] | None = (
            StampPairer.from_settings(settings) if with_others else None)

    @property
    def counts(self) -> dict[str, int]:
        """Return how many images had no partner, and how many messages came late or stale."""
        others = self._others
        return {'images_missed': self._images.images_missed,
                'images_late': self._images.late + (others.late if others else 0),
                'images_stale': self._images.stale + (others.stale if others else 0)}

    @property
    def lonely_odometry(self) -> int:
        """Return how much odometry was given up because no others of its stamp came."""
        return 0 if self._others is None else self._others.images_missed

    def add_image(self, stamp_ns: int, image: Image
                  ) -> list[Measurement[Image, Odometry, Others]]:
        """Take an image; return the measurements that are complete now, oldest first."""
        return _measurements(self._images.add_image(stamp_ns, image))

    def add_odometry(self, stamp_ns: int, odometry: Odometry
                     ) -> list[Measurement[Image, Odometry, Others]]:
        """Take an odometry; return the measurements that are complete now, oldest first."""
        if self._others is None:
            return _measurements(self._images.add_odometry(stamp_ns, (odometry, None)))
        return self._go_on(self._others.add_image(stamp_ns, odometry))

    def add_others(self, stamp_ns: int, others: Others
                   ) -> list[Measurement[Image, Odometry, Others]]:
        """Take the other vehicles; return the measurements that are complete now."""
        return [] if self._others is None else self._go_on(
            self._others.add_odometry(stamp_ns, others))

    def clear(self, drop_before_ns: int | None = None) -> None:
        """Forget all that waits, and refuse what is stamped before `drop_before_ns`."""
        self._images.clear(drop_before_ns)
        if self._others is not None:
            self._others.clear(drop_before_ns)

    def _go_on(self, pairs: list[Pair[Odometry, Others]]
               ) -> list[Measurement[Image, Odometry, Others]]:
        return [complete for pair in pairs for complete in _measurements(
            self._images.add_odometry(pair.stamp_ns, (pair.image, pair.odometry)))]


def _measurements(pairs: list[Pair[Image, tuple[Odometry, Others | None]]]
                  ) -> list[Measurement[Image, Odometry, Others]]:
    return [Measurement(pair.image, *pair.odometry) for pair in pairs]
