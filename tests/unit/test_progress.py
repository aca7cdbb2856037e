"""The view of a running session: what a terminal and a log file show."""
from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console

from av_td3_ros.cli.progress import (
    ProgressView,
    clock_text,
    drivers,
    evaluation_table,
    evaluation_text,
    figures,
    sparkline,
)

RECORD = {'kind': 'learner', 'updates': 1234, 'transitions': 400, 'episodes': 3,
          'updates_per_second': 18.44, 'replay_size': 400, 'policy_version': 7,
          'metrics': {'critic_loss': 0.125, 'actor_loss': -1.5, 'q1_mean': 12.34,
                      'q2_mean': 12.1, 'saturated_fraction': 0.023}}


class Clock:
    """A clock that is set by hand, in s."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def console(width: int = 100, terminal: bool = False, encoding: str = 'utf-8') -> Console:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True, newline='')
    return Console(file=file, width=width, force_terminal=terminal, color_system=None,
                   legacy_windows=False)


def written(out: Console) -> str:
    return out.file.buffer.getvalue().decode(out.encoding)


def shown(view: ProgressView, width: int = 100) -> str:
    out = console(width)
    view.console = out
    out.print(view.render())
    return written(out)


def test_without_a_terminal_one_line_is_printed_every_interval():
    clock, out = Clock(), console()
    with ProgressView(1000, console=out, interval=10.0, clock=clock) as view:
        for clock.now in (1.0, 9.9, 10.0, 12.0, 19.9, 20.0):
            view.learner(RECORD)
        lines = written(out).splitlines()
    assert [line.split()[0] for line in lines] == ['0:10', '0:20']
    assert '400/1,000 transitions (40 %)' in lines[0]
    assert 'updates 1,234 at 18.4/s' in lines[0]
    assert 'critic loss 0.125' in lines[0]
    assert 'saturated 2.3 %' in lines[0]
    assert '\x1b' not in written(out)
    assert len(written(out).splitlines()) == 3          # the state it ended in


def test_a_session_without_news_still_prints_its_line():
    clock, out = Clock(), console()
    with ProgressView(1000, console=out, interval=10.0, clock=clock) as view:
        clock.now = 11.0
        view.tick()
        assert '0/1,000 transitions' in written(out)


def test_phases_and_events_are_told_once_and_as_they_are():
    clock, out = Clock(), console()
    with ProgressView(1000, console=out, clock=clock) as view:
        clock.now = 65.0
        view.phase('training')
        view.phase('training')
        view.event('checkpoint 00000500 [red]written')
        assert written(out).splitlines() == ['    1:05  training',
                                             '    1:05  checkpoint 00000500 [red]written']


def test_time_left_follows_the_rate():
    clock = Clock()
    view = ProgressView(500, console=console(), clock=clock)
    view.learner({'transitions': 100})
    clock.now = 10.0
    view.learner({'transitions': 200})
    assert 'ETA 0:30' in view.line()        # 300 to go at 10 a second
    clock.now = 20.0
    assert 'ETA 1:00' in view.line()        # nothing came since: 5 a second
    view.learner({'transitions': 500})
    assert 'ETA done' in view.line()


def test_means_are_of_the_last_twenty_episodes():
    view = ProgressView(1000, console=console(), clock=Clock())
    for number in range(30):
        view.episode({'return': float(number), 'route_completion': 0.5, 'result': 'off_road'})
    # 10 to 29 have the mean 19.5.
    assert 'return 29.0 (mean 19.5)' in view.line()
    assert 'completion 50 % (mean 50 %)' in view.line()
    panel = shown(view)
    assert 'off road' in panel
    assert '29.0, mean 19.5' in panel


def test_an_episode_is_counted_once_whoever_tells_it_first():
    view = ProgressView(1000, console=console(), clock=Clock())
    view.episode({'return': 1.0})
    view.learner({'episodes': 2})
    view.episode({'return': 2.0})
    assert 'episodes 2 ' in view.line()


def test_actor_metrics_stay_between_its_updates():
    view = ProgressView(1000, console=console(), clock=Clock())
    view.learner(RECORD)
    view.learner({'transitions': 401, 'metrics': {'critic_loss': 0.5}})
    assert 'critic loss 0.5 ' in view.line()
    assert 'actor loss -1.5 ' in view.line()


@pytest.mark.parametrize('record', [
    {}, {'metrics': None}, {'metrics': {'critic_loss': 'high'}}, {'transitions': None},
    {'transitions': float('nan'), 'episodes': float('inf'), 'return': float('nan')},
    {'transitions': 'many', 'updates': float('nan')}, {'return': None, 'result': None},
    {'updates_per_second': float('inf'), 'policy_version': []}, {'episodes': None}])
def test_nothing_that_is_missing_or_odd_stops_the_view(record):
    view = ProgressView(0, console=console(), clock=Clock())
    view.learner(record)
    view.episode(record)
    view.nodes({})
    assert 'transitions' in view.line()
    assert 'updates' in shown(view)


def test_a_loss_that_is_not_a_number_is_shown_as_such():
    view = ProgressView(1000, console=console(), clock=Clock())
    view.learner({'metrics': {'critic_loss': float('nan')}})
    assert 'critic loss nan' in view.line()


@pytest.mark.parametrize('width', [40, 79, 80, 200])
def test_the_panel_fits_its_terminal_and_shows_everything(width):
    view = ProgressView(1000, console=console(width), clock=Clock())
    view.phase('training')
    view.learner(RECORD)
    for value in (1.0, 2.0, 3.0):
        view.episode({'return': value, 'route_completion': 0.25 * value, 'result': 'stuck'})
    view.nodes({'simulator': 'running', 'learner': 'died'})
    panel = shown(view, width)
    assert max(len(line) for line in panel.splitlines()) <= width
    for text in ('training', '1,234', '18.4', 'version 7', '75 %, mean 50 %', '0.125', '-1.5',
                 '12.3 / 12.1', '2.3 %', 'simulator', 'stuck'):
        assert text in panel
    assert 'died' in panel


def test_a_terminal_gets_a_live_panel_that_stays_and_a_cursor_back():
    out = console(terminal=True)
    with ProgressView(1000, console=out, clock=Clock()) as view:
        view.learner(RECORD)
        view.event('checkpoint written')
    text = written(out)
    assert 'checkpoint written' in text
    assert '400/1,000 transitions' in text.split('checkpoint written')[-1]
    assert text.rindex('\x1b[?25h') > text.rindex('\x1b[?25l')      # the cursor is shown again


def test_an_exception_gives_the_terminal_back():
    out = console(terminal=True)
    with pytest.raises(KeyboardInterrupt), ProgressView(1000, console=out, clock=Clock()):
        raise KeyboardInterrupt
    assert written(out).rstrip('\n').endswith('\x1b[?25h')


def test_it_can_be_fed_from_many_threads():
    out = console(terminal=True)
    with ProgressView(10_000, console=out, refresh=50.0) as view:
        def feed(first: int) -> None:
            for number in range(first, first + 30):
                view.learner({'transitions': number})
                view.episode({'return': 1.0})
                view.event(f'event {number}')

        threads = [threading.Thread(target=feed, args=(first,), daemon=True)
                   for first in (0, 1000, 2000)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=20.0)
        assert not any(thread.is_alive() for thread in threads)
        assert view.line().split('transitions')[0].endswith('2,029/10,000 ')
    assert written(out).count('event ') == 90


def test_a_terminal_of_ascii_gets_ascii():
    out = console(terminal=True, encoding='ascii')
    with ProgressView(1000, 'Straße', console=out, clock=Clock()) as view:
        view.learner(RECORD)
        view.episode({'return': 1.0})
        view.episode({'return': 2.0})
        view.nodes({'simulator': 'running', 'learner': 'died'})
        view.event('weights → policy')
    assert 'weights ? policy' in written(out)
    assert '* simulator' in written(out)


EVALUATION = {
    'map': 'town', 'seed': 7,
    'pursuit': {'episodes': [{}] * 5, 'metrics': {
        'success': {'mean': 1.0, 'low': 1.0, 'high': 1.0},
        'cross_track_rms': {'mean': 0.087, 'low': 0.05, 'high': 0.12}}},
    'learned': {'episodes': [{}] * 5, 'metrics': {
        'success': {'mean': 0.8, 'low': 0.4, 'high': 1.0},
        'cross_track_rms': {'mean': 0.3, 'low': None, 'high': None}}},
    'untrained': {'episodes': [{}] * 5, 'success': 0.0, 'metrics': {}},
}


def test_the_evaluation_compares_the_drivers_in_order():
    assert list(drivers(EVALUATION)) == ['untrained', 'learned', 'pursuit']
    assert evaluation_text(EVALUATION).splitlines() == [
        'Evaluation: map town, 5 episodes a driver, seed 7',
        'metric               untrained       learned            pursuit',
        'success [%]                  0  80 [40, 100]     100 [100, 100]',
        'cross-track RMS [m]          -          0.30  0.09 [0.05, 0.12]',
        'in brackets: 95 % intervals']


def test_the_evaluation_table_fits_eighty_columns():
    metrics = {key: {'mean': 12.34, 'low': 10.12, 'high': 14.56} for key in (
        'mean_return', 'mean_speed', 'collisions_per_km', 'lane_invasions_per_km', 'jerk_rms')}
    metrics['cross_track_rms'] = {'mean': 0.31, 'low': 0.25, 'high': 0.36}
    out = console(80)
    out.print(evaluation_table({name: {'metrics': metrics, 'episodes': []}
                                for name in ('untrained', 'learned', 'pursuit')}))
    text = written(out)
    assert text.count('12.3 [10.1, 14.6]') == 15        # no cell is broken over two lines
    assert text.count('0.31 [0.25, 0.36]') == 3
    assert 'lane invasions [1/km]' in text


def test_an_evaluation_of_nothing_is_said_to_be_so():
    out = console()
    out.print(evaluation_table({}))
    assert 'no drivers' in written(out)
    assert 'no drivers' in evaluation_text({'map': '', 'seed': None})


def test_numbers_as_a_person_reads_them():
    assert [figures(value) for value in (None, 0.0, 0.00308, 0.1234, 9.876, 12.34, 1234.5, 2.5e6,
                                         1e-5, float('nan'))] == [
        '-', '0', '0.00308', '0.123', '9.88', '12.3', '1,234', '2.5e+06', '1.0e-05', 'nan']
    assert [clock_text(value) for value in (0.0, 59.6, 3599.0, 3661.0, float('inf'))] == [
        '0:00', '1:00', '59:59', '1:01:01', '-']
    assert sparkline([0.0, 1.0, 7.0]) == '▁▂█'
    assert sparkline([2.0, float('nan'), 2.0]) == '▁ ▁'
