"""The limiter holds the ratio and never lets both sides wait."""
from __future__ import annotations

import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from av_td3_ros.td3 import LimiterSettings, UpdateLimiter


def limiter(ratio: float = 0.5, start_after: int = 10, slack: int = 4) -> UpdateLimiter:
    """Return a limiter."""
    return UpdateLimiter(LimiterSettings(ratio, start_after, slack))


def test_updates_begin_after_the_warm_up_at_the_given_ratio() -> None:
    one = limiter()
    one.received(11)
    assert not one.may_update()
    one.received()
    assert one.may_update()
    one.updated()
    assert not one.may_update()
    made = 0
    for _ in range(100):
        one.received()
        while one.may_update():
            one.updated()
            made += 1
    assert made == 50


def test_another_ratio_holds_for_what_comes_from_then_on() -> None:
    one = limiter()
    one.received(30)  # 10 updates due
    one.change(LimiterSettings(2.0, 10, 4))
    assert one.due == 10.0
    one.received(5)
    assert one.due == 20.0


def test_the_world_waits_beyond_the_slack_and_goes_on_at_half_of_it() -> None:
    one = limiter(ratio=1.0, start_after=1, slack=4)
    one.received(5)
    assert not one.world_must_wait()
    one.received()
    waits = []
    for _ in range(4):
        waits.append(one.world_must_wait())
        one.updated()
    assert waits == [True, True, True, False]


def test_the_world_does_not_wait_during_the_warm_up() -> None:
    one = limiter(start_after=1000, slack=1)
    one.received(1000)
    assert not one.world_must_wait() and not one.may_update()


@settings(max_examples=200, deadline=None)
@given(st.floats(0.0, 8.0), st.integers(1, 20), st.integers(1, 16),
       st.lists(st.booleans(), max_size=200))
def test_one_of_world_and_learner_can_always_go_on(ratio: float, start_after: int, slack: int,
                                                   moves: list[bool]) -> None:
    one = limiter(ratio, start_after, slack)
    for world in moves:
        waiting = one.world_must_wait()
        assert not waiting or one.may_update()
        if world and not waiting:
            one.received()
        elif one.may_update():
            one.updated()
        assert one.due <= slack + ratio
        assert one.updates <= max(0, one.transitions - start_after) * ratio


def test_waiting_ends_when_transitions_arrive_and_not_without_them() -> None:
    one = limiter(ratio=1.0, start_after=1)
    assert not one.wait(0.0)
    sender = threading.Thread(target=one.received, args=(2,))
    sender.start()
    assert one.wait(60.0)
    sender.join()


def test_the_counters_survive_a_checkpoint() -> None:
    one, other = limiter(), limiter()
    one.received(30)
    one.updated()
    other.load_state_dict(one.state_dict())
    assert (other.transitions, other.updates, other.due) == (30, 1, one.due)


def test_a_ratio_changed_at_resuming_holds_from_then_on() -> None:
    before = limiter(ratio=1.0, start_after=1)
    before.received(101)
    for _ in range(90):
        before.updated()
    assert before.due == 10
    for ratio in (0.5, 4.0):
        after = limiter(ratio=ratio, start_after=1)
        after.load_state_dict(before.state_dict())
        assert after.due == 10
        after.received(20)
        assert after.due == 10 + 20 * ratio
