"""Everything that learning needs beside messages: agent, replays, limiter and checkpoints."""
from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import os
import threading
from pathlib import Path

import torch

from av_td3_ros.settings import flatten, group, setting
from av_td3_ros.td3.agent import TD3, Metrics, TD3Settings
from av_td3_ros.td3.checkpoint import CheckpointError, Checkpoints, agent_to_bytes, load
from av_td3_ros.td3.demonstrations import DemonstrationSettings, HumanSteps, MixedReplay
from av_td3_ros.td3.diagnostics import examine
from av_td3_ros.td3.limiter import LimiterSettings, UpdateLimiter
from av_td3_ros.td3.networks import NetworkSettings
from av_td3_ros.td3.priority import PRIORITIES
from av_td3_ros.td3.ranks import ALONE, SILENCE, Ranks, RanksError, enlist, is_told, own_device
from av_td3_ros.td3.replay import (
    SEGMENT,
    TRANSITIONS,
    VEHICLES,
    DuplicateError,
    ReplayBuffer,
    ReplayCounts,
    StepRecord,
)
from av_td3_ros.td3.shards import (
    DEMONSTRATIONS,
    RemoteReplay,
    ShardedReplay,
    SharedDemonstrations,
    check_alike,
    to_message,
)
from av_td3_ros.td3.weights import PRECISIONS as WEIGHTS_PRECISIONS
from av_td3_ros.trust.signing import SigningSettings

UNTRAINED = 'untrained'
"""The link to the checkpoint from before the first update, to compare with."""


@dataclasses.dataclass(frozen=True)
class LearnerSettings:
    """What the learner is told."""

    run: str = setting('', 'run folder for checkpoints, tensorboard and metrics.jsonl; empty: '
                       'nothing is written')
    resume: str = setting('', 'checkpoint to go on from; empty: start anew. A learner that is '
                          'started again in its own run folder goes on from the newest whole '
                          'checkpoint there, whatever stands here, but for one of the same run')
    bags: tuple[str, ...] = setting((), 'recorded bags to learn from before anything is driven')
    demonstration_bags: tuple[str, ...] = setting((), 'recorded bags of human driving, kept '
                                                  'apart and drawn more often: see human.share')
    seed: int = setting(0, 'seed of weights, noise and sampling', minimum=0, maximum=2**31 - 1)
    device: str = setting('cpu', 'torch device of the update, such as cpu or cuda')
    threads: int = setting(1, 'threads of the update on the processor', minimum=1, maximum=256)
    priority: str = setting('low', 'of the update beside what else this computer does: normal is '
                            'like the rest; low gets little (nice 10) while others want it, so '
                            'that no vehicle waits for it; idle gets only what nobody wants',
                            choices=PRIORITIES)
    ranks: int = setting(1, 'processes that learn together, each with a batch and a part of the '
                         'replay of its own; on GPUs each has one', minimum=1, maximum=1024)
    rank_timeout: float = setting(SILENCE, 'wall time in s that a rank may be silent before the '
                                  'others take it for dead', minimum=1.0, maximum=86400.0)
    total_transitions: int = setting(0, 'transitions to receive, beside those of a resumed run '
                                     'and of bags, until training is finished; 0: it goes on',
                                     minimum=0)
    offline: bool = setting(False, 'learn from the bags only and finish')
    capacity: int = setting(100_000, 'steps that the replay keeps, 7.3 kB each', minimum=2)
    sampling: str = setting(TRANSITIONS, 'what is drawn alike for a batch: all transitions, or '
                            'all vehicles, so that each has the same share however much it drove',
                            choices=(TRANSITIONS, VEHICLES))
    replay_folder: str = setting('', 'folder whose disk holds the frames of the replay instead of '
                                 'the memory, for a replay larger than that; empty: memory')
    replay_on_device: bool = setting(True, 'keep the frames in the memory of a GPU that has twice '
                                     'the room for them')
    publish_every: int = setting(50, 'updates between two published policies', minimum=1)
    publish_period: float = setting(0.0, 'least wall time in s between two published policies: '
                                    'the newest waits for it, and none is sent in between; the '
                                    'last one always gets out', minimum=0.0, maximum=3600.0)
    weights_precision: str = setting('float32', 'in which the weights are sent: float16 takes '
                                     'half the bytes, and the actions differ by less than 1e-3',
                                     choices=tuple(WEIGHTS_PRECISIONS))
    checkpoint_every: int = setting(500, 'updates between two checkpoints', minimum=1)
    checkpoints_kept: int = setting(3, 'newest checkpoints that are kept, beside the untrained '
                                    'and the best one', minimum=1)
    score_episodes: int = setting(20, 'newest episodes whose mean return is the score of a '
                                  'checkpoint', minimum=1)
    skips_tolerated: int = setting(20, 'updates in a row that are not finite after which the last '
                                   'checkpoint is restored', minimum=1)
    status_period: float = setting(1.0, 'wall time in s between two status messages',
                                   minimum=0.05, maximum=3600.0)
    pause_world: bool = setting(True, 'hold a lockstep world while learning is behind')
    network: NetworkSettings = group(NetworkSettings, 'shape of actor and critic')
    td3: TD3Settings = group(TD3Settings, 'the algorithm')
    human: DemonstrationSettings = group(DemonstrationSettings, 'learning from human driving')
    limiter: LimiterSettings = group(LimiterSettings, 'updates for each transition')
    signing: SigningSettings = group(SigningSettings, 'who the weights are from')


class Learner:
    """
    Take transitions, learn from them as the limiter allows, keep checkpoints.

    One thread may take while another one learns. `policy_version` counts the published policies,
    `episodes` the episodes that were driven, `total` the transitions to receive (0: no end).

    Of several `ranks` the first one's leads: it alone is told anything, and has the others take,
    learn and stop (see `follower`). `own` is the shard of the replay that lies here.
    """

    def __init__(self, settings: LearnerSettings, ranks: Ranks = ALONE) -> None:
        """Raise ValueError for a device that is not there, OSError for a file that cannot be."""
        s = self.settings = settings
        self.ranks = ranks
        if ranks.count > 1 and ranks.rank == 0:
            told = json.dumps(flatten(s)).encode()
            for rank in range(1, ranks.count):
                ranks.send(rank, told)
        device = own_device(s.device) if ranks.count > 1 else s.device
        if s.device.startswith('cuda') and not torch.cuda.is_available():
            raise ValueError(f'device = {s.device!r}: this torch sees no CUDA device; set cpu')
        if s.offline and not (s.bags or s.demonstration_bags):
            raise ValueError('offline = true: there is nothing to learn from; give bags')
        torch.set_num_threads(s.threads)
        self.agent = TD3(s.td3, s.network, s.seed, device, ranks)
        shape = s.network.frames, s.network.frame_size, s.network.state_size
        capacity = max(2, -(-s.capacity // ranks.count))
        frames_device = _frames_device(s, device, capacity)
        # Ranks that torchrun starts may be those of several computers.
        check_memory(s, 1 / ranks.count if is_told() else 1.0, frames_device != 'cpu')
        self.own = ReplayBuffer(capacity, *shape, s.seed + 2 * ranks.rank, s.replay_folder or None,
                                frames_device, s.sampling)
        leads = ranks.count > 1 and ranks.rank == 0
        self._led = ShardedReplay(self.own, ranks, s.sampling) if leads else None
        self.replay = self.own if self._led is None else self._led
        self.demonstrations = ReplayBuffer(s.human.capacity, *shape, s.seed + 1,
                                           device=frames_device)
        # Of bags alone there is nothing to wait for.
        self.limiter = UpdateLimiter(
            dataclasses.replace(s.limiter, start_after=1) if s.offline else s.limiter)
        self.policy_version = self.episodes = 0
        self.total = s.total_transitions
        self.checkpoint = ''
        self.checkpoints = (Checkpoints(Path(s.run) / 'checkpoints', s.checkpoints_kept)
                            if s.run else None)
        self._mixed = MixedReplay(self.own, self.demonstrations, s.human.share, ranks)
        self._shown = (self.demonstrations if self._led is None else
                       SharedDemonstrations(self.demonstrations, self._led))
        self._human = HumanSteps(self._shown, s.network.frames, s.td3.n_step)
        self._returns: collections.deque[float] = collections.deque(maxlen=s.score_episodes)
        self._tried: set[Path] = set()
        self._drives = False
        self._taking = threading.Lock()
        self._base: int | None = None  # transitions that came before driving began
        self.told: list[str] = []
        own = self._own_checkpoints()
        if s.run and not (Path(s.run) / 'checkpoints' / UNTRAINED).exists():
            self.save(pin=UNTRAINED)
        if own:
            self._go_on(own)
        elif s.resume:
            self._resume(Path(s.resume))
        self._teach()

    def take(self, record: StepRecord, human: bool = False) -> None:
        """Store the next step of a vehicle; raises ReplayError for one that cannot be stored."""
        with self._taking:  # a checkpoint holds all of a step or nothing of it
            self.replay.add(record)
            with contextlib.suppress(DuplicateError):  # a demonstration may hold it already
                self._human.add(record, human)
            if not record.is_last:
                self.limiter.received()
        self._relieve()

    def take_demonstration(self, record: StepRecord) -> None:
        """Store a step of a demonstration, which is kept apart. Raises as `take` does."""
        self._shown.add(record)
        if not record.is_last:
            self.limiter.received()
        self._relieve()

    def _relieve(self) -> None:
        """Before anyone learns, hand out to the other ranks what has come for them."""
        if self._led is not None and not self._drives and self._led.is_full:
            self._led.round()

    def begin_driving(self) -> None:
        """
        Count from here what is to be received: what came before was from bags.

        Raises ValueError when learning is to be offline and there is nothing to do.
        """
        s = self.settings
        self._drives = True
        self.replay.counts = ReplayCounts()
        if s.offline:
            self.total = self.limiter.transitions
            if not self.limiter.may_update():
                raise ValueError(
                    f'offline: the {self.total} transitions of the bags allow no update beside '
                    f'the {self.agent.updates} made; raise limiter.updates_per_transition')
            return
        if self._base is None:
            self._base = self.limiter.transitions
        if s.total_transitions:
            self.total = self._base + s.total_transitions

    def finish_episode(self, total_reward: float, interrupted: bool = False) -> None:
        """Note an episode's return; that of an interrupted one says nothing of the policy."""
        self.episodes += 1
        if not interrupted:
            self._returns.append(total_reward)

    @property
    def is_complete(self) -> bool:
        """Return whether all transitions that were asked for are there."""
        return self.total > 0 and self.limiter.transitions >= self.total

    def wait(self, timeout: float) -> bool:
        """Wait until an update is due, at most `timeout` wall seconds; return whether it is."""
        is_due = self.limiter.wait(timeout)
        if self._led is not None:
            self._led.keep_in_touch()
        return is_due and len(self.replay) + len(self.demonstrations) > 0

    def train(self, share: float | None = None) -> Metrics:
        """Make one update from the own shard, whose weight is `share`, with all other ranks."""
        return self.agent.train(self._mixed, share)

    def update(self) -> Metrics | None:
        """Make one update; return what it measured, None when it was skipped as not finite."""
        metrics = self.train(None if self._led is None else self._led.round('update'))
        self.limiter.updated()
        if self.agent.skipped_in_row:
            return None
        self._tried.clear()
        return metrics

    def examine(self) -> dict[str, float]:
        """Return health figures: see `diagnostics.examine`."""
        return examine(self.agent, self.own, self.policy_version, self._mixed.drawn)

    def recover(self) -> str:
        """Go back to the last checkpoint after too many skipped updates; return what was done."""
        s, agent = self.settings, self.agent
        if agent.skipped_in_row < s.skips_tolerated:
            return ''
        skipped = agent.skipped
        why = f'{s.skips_tolerated} updates in a row were not finite'
        for folder in reversed(self.checkpoints.folders() if self.checkpoints else []):
            if folder in self._tried:
                continue  # from there it came to this
            self._tried.add(folder)
            try:
                load(folder).restore(agent)
            except CheckpointError as error:
                why += f'; {error}'
                continue
            agent.skipped, agent.skipped_in_row = skipped, 0
            self._teach()
            return f'{why}: went back to {folder}'
        agent.skipped_in_row = 0
        self._teach()
        return f'{why} and there is no checkpoint left to go back to'

    def save(self, pin: str | None = None) -> None:
        """
        Write a checkpoint, where there is a run folder; raises OSError when it cannot be.

        Not while updates fail: what is written must be good to go back to. Raises RanksError when
        the ranks have not learned the same.
        """
        if self.checkpoints is None or self.agent.skipped_in_row:
            return
        if self._led is not None:
            self._order('alike')
            check_alike(self.ranks, self.agent)
        counters = {'drawn': self._mixed.drawn,
                    'policy_version': self.policy_version, 'episodes': self.episodes,
                    'transitions': self.limiter.transitions, 'returns': list(self._returns),
                    'base': self._base}
        whole = len(self._returns) == self._returns.maxlen
        score = sum(self._returns) / len(self._returns) if whole else None
        self.checkpoint = str(self.checkpoints.save(
            self.agent, self.replay, self.limiter, counters, flatten(self.settings), score, pin,
            self.demonstrations, shards=self._shards, hold=self._taking))

    def _own_checkpoints(self) -> list[Path]:
        """Return those of this run to go on from after a crash, the newest first."""
        s = self.settings
        if self.checkpoints is None:
            return []
        if s.resume and Path(s.resume).resolve().is_relative_to(Path(s.run).resolve()):
            return []  # one of them was chosen
        untrained = (self.checkpoints.directory / UNTRAINED).resolve()
        return [folder for folder in reversed(self.checkpoints.folders())
                if folder.resolve() != untrained]

    def _go_on(self, folders: list[Path]) -> None:
        """Go on where this run was interrupted. Raises CheckpointError when nothing is whole."""
        for folder in folders:
            try:
                self._resume(folder)
            except CheckpointError as error:
                if folder == folders[-1]:
                    raise
                self.told.append(f'{error}: going back to the one before')
                continue
            self._base = load(folder).counters.get('base')
            self.told.append(f'this run was interrupted: going on from {folder} with '
                             f'{self.agent.updates} updates and {self.limiter.transitions} '
                             'transitions')
            return

    def _resume(self, path: Path) -> None:
        checkpoint = load(path)
        checkpoint.restore(self.agent, self.replay, self.limiter, self.demonstrations,
                           self._shards)
        if self._led is not None:
            self._led.resume(checkpoint.shard_states)
            state = self.demonstrations.state_dict()
            for rank in range(1, self.ranks.count):
                RemoteReplay(self.ranks, rank, DEMONSTRATIONS).load_state_dict(
                    state, (self.demonstrations.segment(index, state['total']) for index in
                            range(state['first'] // SEGMENT, -(-state['total'] // SEGMENT))))
        self.policy_version = int(checkpoint.counters['policy_version'])
        self.episodes = int(checkpoint.counters['episodes'])
        self._returns.extend(checkpoint.counters['returns'])
        self._mixed.drawn = int(checkpoint.counters['drawn'])


    @property
    def _shards(self) -> list[RemoteReplay]:
        return [] if self._led is None else self._led.others

    def _order(self, order: str, data: bytes = b'') -> None:
        """Let every other rank follow an order."""
        for rank in range(1, self.ranks.count if self.ranks.rank == 0 else 0):
            self.ranks.send(rank, to_message(order, data))

    def _teach(self) -> None:
        """Make the agents of the other ranks what this one is."""
        if self._led is not None:
            self._order('agent', agent_to_bytes(self.agent))

    def close(self) -> None:
        """Let the other ranks end."""
        with contextlib.suppress(RanksError):  # those that have ended will not hear it
            self._order('stop')
        self.ranks.leave()


def lead(settings: LearnerSettings) -> Learner:
    """Return the learner, after starting the ranks beside it. Raises as it does, and `enlist`."""
    ranks = enlist(settings.ranks, settings.device, settings.rank_timeout)
    try:
        return Learner(settings, ranks)
    except (ValueError, OSError):
        with contextlib.suppress(RanksError):
            for rank in range(1, ranks.count):
                ranks.send(rank, to_message('stop'))
        ranks.leave()
        raise


def check_memory(settings: LearnerSettings, share: float = 1.0, on_device: bool = False) -> None:
    """
    Raise ValueError for a replay that this computer has not the memory for.

    `share` of it is kept here; its frames take no memory where they lie `on_device`.
    """
    s, network, there = settings, settings.network, memory_here()
    step = ReplayBuffer(2, network.frames, network.frame_size, network.state_size).bytes_per_step
    index = step - (network.frame_size ** 2 if network.frames else 0)
    driven = s.capacity * share * (index if s.replay_folder or on_device else step)
    shown = s.human.capacity * (index if on_device else step)
    if driven + shown <= there:
        return
    name, value, wanted = (('capacity', s.capacity, driven) if driven >= shown else
                           ('human.capacity', s.human.capacity, shown))
    remedy = 'give a smaller one'
    on_disk = s.capacity * share * index + shown <= there
    if name == 'capacity' and on_disk and not s.replay_folder:
        remedy += ', or a replay_folder, on whose disk the frames lie instead'
    raise ValueError(f'{name} = {value} takes {wanted / 1e9:.1f} GB of memory, and this computer '
                     f'has {there / 1e9:.1f} GB for everything: {remedy}')


def memory_here() -> int:
    """Return the bytes of memory of this computer, or of the container that this runs in."""
    there = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    try:
        return min(there, int(Path('/sys/fs/cgroup/memory.max').read_text(encoding='ascii')))
    except (OSError, ValueError):  # no container, or one without a limit
        return there


def _frames_device(settings: LearnerSettings, device: str, capacity: int) -> str:
    """Return where the frames shall lie: on the GPU when it has twice the room."""
    s, size = settings, settings.network.frame_size
    if not device.startswith('cuda') or not s.replay_on_device or s.replay_folder:
        return 'cpu'
    free, _ = torch.cuda.mem_get_info(torch.device(device))
    wanted = (capacity + s.human.capacity) * size * size
    return device if free > 2 * wanted else 'cpu'
