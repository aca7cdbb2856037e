"""`av-td3 route`: a way driven by hand becomes the route of a vehicle."""
from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import Peer, await_that
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMessage

from av_td3_ros.cli import main
from av_td3_ros.cli.poses import read_poses
from av_td3_ros.ros import qos


def test_what_is_driven_is_recorded_and_published(peer: Peer, tmp_path: Path) -> None:
    file = tmp_path / 'route.csv'
    recording = subprocess.Popen(
        [sys.executable, '-m', 'av_td3_ros.cli.main', 'route', 'record', '--out', str(file)],
        stdout=subprocess.PIPE, text=True)
    publish = peer.speak(Odometry, '/vehicle/odometry', qos.VEHICLE)
    sent: list[float] = []

    def drive_on() -> None:
        step = len(sent)
        message = Odometry()
        message.header.frame_id = 'ground'
        message.header.stamp.nanosec = step * 1_000_000
        message.pose.pose.position.x = 0.1 * step
        message.pose.pose.orientation.w = 1.0
        publish(message)
        sent.append(0.1 * step)

    driving = peer.node.create_timer(0.02, drive_on)
    assert recording.stdout is not None and 'recording' in recording.stdout.readline()
    assert 'it comes' in recording.stdout.readline()
    heard_from = len(sent)
    await_that(lambda: len(sent) > heard_from + 60, 'a few metres')
    peer.node.destroy_timer(driving)
    recording.send_signal(signal.SIGINT)
    assert recording.wait(30) == 0
    poses = read_poses(file)
    assert len(poses) >= 2 and poses[-1][0] - poses[0][0] >= 0.5

    heard = peer.hear(PathMessage, '/vehicle/route', qos.LATCHED)
    publishing = subprocess.Popen(
        [sys.executable, '-m', 'av_td3_ros.cli.main', 'route', 'publish', '--poses', str(file)])
    route = heard.next()
    assert route.header.frame_id == 'ground'
    assert [one.pose.position.x for one in route.poses] == pytest.approx(poses[:, 0].tolist())
    publishing.send_signal(signal.SIGINT)
    assert await_that(lambda: publishing.poll() is not None, 'the end of the command')
    assert publishing.returncode == 0


def test_what_is_no_route_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / 'one.json').write_text('[[0, 0, 0]]')
    assert main._run(['route', 'publish', '--poses', str(tmp_path / 'one.json')]) == 1
    assert 'a route has two poses at least' in capsys.readouterr().err
    (tmp_path / 'there.csv').write_text('precious')
    assert main._run(['route', 'record', '--out', str(tmp_path / 'there.csv')]) == 1
    assert 'exists already' in capsys.readouterr().err
