"""Images and odometry find each other by stamp: order, loss, waiting, resets and time jumps."""
from __future__ import annotations

import itertools
import random

import pytest

from av_td3_ros.driving.perception.pairing import (
    Measurement,
    MeasurementPairer,
    Pair,
    PairingSettings,
    StampPairer,
)
from av_td3_ros.settings import check

MS = 1_000_000


def pairer(tolerance_ms: int = 0, depth: int = 50) -> StampPairer[str, str]:
    return StampPairer(200 * MS, depth, tolerance_ms * MS)


def feed(one: StampPairer[str, str], *messages: str) -> list[str]:
    """Feed messages like 'i50' and 'o50' (image, odometry at 50 ms); return pairs 'i50+o50'."""
    made: list[Pair[str, str]] = []
    for message in messages:
        add = one.add_image if message[0] == 'i' else one.add_odometry
        made += add(int(message[1:]) * MS, message)
    assert all(pair.stamp_ns == int(pair.image[1:]) * MS for pair in made)
    return [f'{pair.image}+{pair.odometry}' for pair in made]


def test_equal_stamps_pair_whichever_comes_first() -> None:
    one = pairer()
    assert feed(one, 'i50') == []
    assert feed(one, 'o50') == ['i50+o50']
    assert feed(one, 'o100') == []
    assert feed(one, 'i100') == ['i100+o100']
    assert (one.images_missed, one.odometry_unused, one.late) == (0, 0, 0)


def test_one_stream_running_ahead_is_caught_up_in_order() -> None:
    one = pairer()
    assert feed(one, 'i50', 'i100', 'i150') == []
    assert feed(one, 'o50', 'o100', 'o150') == ['i50+o50', 'i100+o100', 'i150+o150']


def test_lost_odometry_costs_its_image_and_no_other() -> None:
    one = pairer()
    assert feed(one, 'i50', 'i100', 'o100', 'i150', 'o150') == ['i100+o100', 'i150+o150']
    assert one.images_missed == 1


def test_lost_image_costs_its_odometry_and_no_other() -> None:
    one = pairer()
    assert feed(one, 'o50', 'o100', 'i100', 'i150', 'o150') == ['i100+o100', 'i150+o150']
    assert one.odometry_unused == 1


def test_image_waits_no_longer_than_it_may() -> None:
    one = pairer()
    feed(one, 'i50', 'i100', 'i250')
    assert one.images_missed == 0
    feed(one, 'i251')
    assert one.images_missed == 1
    assert feed(one, 'o100') == ['i100+o100']


def test_any_loss_keeps_pairs_right_and_in_order() -> None:
    rng = random.Random(5)
    for _ in range(50):
        one = pairer()
        images = [stamp for stamp in range(50, 5000, 50) if rng.random() < 0.8]
        odometry = [stamp for stamp in range(50, 5000, 50) if rng.random() < 0.8]
        arrivals = sorted([(stamp + rng.randrange(45), f'i{stamp}') for stamp in images]
                          + [(stamp + rng.randrange(45), f'o{stamp}') for stamp in odometry])
        both = sorted(set(images) & set(odometry))
        assert feed(one, *(message for _, message in arrivals)) == [
            f'i{stamp}+o{stamp}' for stamp in both]


def test_tolerance_takes_the_nearest_once_none_nearer_can_come() -> None:
    one = pairer(tolerance_ms=10)
    assert feed(one, 'o92', 'o96', 'i100') == []
    assert feed(one, 'o103') == ['i100+o103']
    assert feed(one, 'o141', 'o148', 'o156', 'i150') == ['i150+o148']


def test_equal_stamp_needs_no_waiting_with_a_tolerance() -> None:
    one = pairer(tolerance_ms=10)
    assert feed(one, 'o97', 'o100', 'i100') == ['i100+o100']


def test_nothing_within_the_tolerance_is_a_miss() -> None:
    one = pairer(tolerance_ms=10)
    assert feed(one, 'o85', 'i100', 'o115', 'i120') == []
    assert one.images_missed == 1
    assert feed(one, 'o121') == ['i120+o121']


def test_odometry_that_stops_still_serves_the_image_before() -> None:
    one = pairer(tolerance_ms=10)
    assert feed(one, 'o95', 'i100', 'i300') == []
    assert feed(one, 'i301') == ['i100+o95']


def test_one_odometry_serves_one_image() -> None:
    one = pairer(tolerance_ms=30)
    assert feed(one, 'o100', 'i100', 'i120', 'o200') == ['i100+o100']


def test_nothing_is_paired_across_a_reset() -> None:
    one = pairer()
    feed(one, 'i100', 'o150')
    one.clear(drop_before_ns=200 * MS)
    assert feed(one, 'o100', 'i150', 'i175', 'o175') == []
    assert feed(one, 'i200', 'o200') == ['i200+o200']
    assert one.stale == 3
    assert one.late == 1


def test_clock_that_starts_anew_starts_the_pairing_anew() -> None:
    one = pairer()
    feed(one, 'i9000', 'o9000', 'i9050')
    one.clear(drop_before_ns=9500 * MS)
    assert feed(one, 'i0', 'o0', 'i50', 'o50') == ['i0+o0', 'i50+o50']
    assert one.time_jumps == 1


def test_message_repeated_or_overtaken_is_late() -> None:
    one = pairer()
    assert feed(one, 'i100', 'i100', 'i60', 'o100', 'o100', 'o60') == ['i100+o100']
    assert one.late == 4


def test_only_so_many_messages_wait() -> None:
    one = StampPairer[str, str](10**15, depth=3)
    assert feed(one, 'i1', 'i2', 'i3', 'i4', 'i5') == []
    assert one.images_missed == 2
    assert feed(one, 'o1', 'o2', 'o3', 'o4', 'o5') == ['i3+o3', 'i4+o4', 'i5+o5']
    feed(one, *(f'o{stamp}' for stamp in range(10, 30)))
    assert one.odometry_unused == 2 + 17
    assert feed(one, 'i27', 'i28', 'i29') == ['i27+o27', 'i28+o28', 'i29+o29']


def test_settings_give_wait_depth_and_tolerance() -> None:
    check(PairingSettings())
    one: StampPairer[str, str] = StampPairer.from_settings(
        PairingSettings(max_wait=0.1, depth=2, tolerance=0.01))
    assert feed(one, 'i100', 'o108') == ['i100+o108']
    feed(one, 'i200', 'i301')
    assert one.images_missed == 1
    feed(one, 'i302', 'i303')
    assert one.images_missed == 2


@pytest.mark.parametrize('arguments', [(0, 1, 0), (1, 0, 0), (1, 1, -1)])
def test_pairer_that_could_never_pair_is_refused(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match='cannot wait'):
        StampPairer[str, str](*arguments)


def measured(one: MeasurementPairer[str, str, str], *messages: str) -> list[str]:
    """Feed messages like 'i50', 'o50' and 'v50' (vehicles); return 'i50+o50+v50'."""
    made: list[Measurement[str, str, str]] = []
    for message in messages:
        add = {'i': one.add_image, 'o': one.add_odometry, 'v': one.add_others}[message[0]]
        made += add(int(message[1:]) * MS, message)
    return [f'{each.image}+{each.odometry}+{each.others}' for each in made]


def test_a_measurement_has_all_three_of_one_stamp_in_whatever_order_they_come() -> None:
    for order in itertools.permutations(('i50', 'o50', 'v50')):
        one: MeasurementPairer[str, str, str] = MeasurementPairer(PairingSettings(), True)
        assert measured(one, *order[:2]) == []
        assert measured(one, order[2]) == ['i50+o50+v50']
        assert measured(one, 'v100', 'i100', 'v150', 'o100') == ['i100+o100+v100']
        assert one.counts == {'images_missed': 0, 'images_late': 0, 'images_stale': 0}


def test_without_other_vehicles_nobody_waits_for_them() -> None:
    one: MeasurementPairer[str, str, str] = MeasurementPairer(PairingSettings(), False)
    assert measured(one, 'i50', 'v50') == []
    assert measured(one, 'o50') == ['i50+o50+None']
    assert one.lonely_odometry == 0


def test_a_step_whose_other_vehicles_are_lost_is_lost_and_no_other() -> None:
    one: MeasurementPairer[str, str, str] = MeasurementPairer(PairingSettings(), True)
    assert measured(one, 'o50', 'i50', 'o100', 'i100', 'v100') == ['i100+o100+v100']
    assert one.lonely_odometry == 1 and one.counts['images_missed'] == 1


def test_no_measurement_is_put_together_across_a_reset() -> None:
    one: MeasurementPairer[str, str, str] = MeasurementPairer(PairingSettings(), True)
    measured(one, 'o50', 'v100', 'i100')
    one.clear(drop_before_ns=150 * MS)
    assert measured(one, 'o100', 'i125', 'v125', 'o125') == []
    assert measured(one, 'v150', 'o150', 'i150') == ['i150+o150+v150']
    assert one.counts['images_stale'] == 4
