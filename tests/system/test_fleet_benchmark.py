"""The benchmark of a fleet with small numbers: vehicles and a learner, each a process."""
from __future__ import annotations

import os
from pathlib import Path

import pytest

from av_td3_ros.ros.runtime import DomainLease, ros_environment
from benchmarks import fleet


def test_a_small_fleet_loses_nothing_and_hears_the_weights(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ros_environment(os.environ).items():
        monkeypatch.setenv(name, value)
    lease = DomainLease()
    monkeypatch.setenv('ROS_DOMAIN_ID', str(lease.domain))
    monkeypatch.setattr(fleet, 'PERIOD', 2.0)
    monkeypatch.setattr(fleet, 'FEATURES', 64)
    fleet.prepare(tmp_path)
    row = fleet.measure(5, 6.0, 2.0, tmp_path)
    assert row['offered'] == row['received'] > 5 * 6 * fleet.RATE / 2
    assert (row['missing'], row['twice'], row['lost']) == (0, 0, 0)
    assert row['updates_beside'] > 0 and row['policies'] > 0
    assert row['slow_one_kept'] == [row['newest']]
    lease.release()
