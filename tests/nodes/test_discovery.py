"""Who finds the nodes of this host: two network namespaces stand for two hosts."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

HOSTS = r"""
set -e
ip link set lo up
unshare --net sleep 300 & other=$!
trap 'kill $other' EXIT
until [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done
ip link add dev here0 type veth peer name there0 netns $other
ip addr add 10.9.0.1/24 dev here0 && ip link set here0 up
there() { nsenter --target $other --net "$@"; }
there ip link set lo up && there ip addr add 10.9.0.2/24 dev there0 && there ip link set there0 up
coproc told { "$PYTHON" -c "$NODE" teller; }
read -r ready <&"${told[0]}"
there env ROS_AUTOMATIC_DISCOVERY_RANGE=SUBNET "$PYTHON" -c "$NODE" listener "$SECONDS_TO_LISTEN"
echo >&"${told[1]}"
wait $told_PID
"""
NODE = """
import os, sys, time
from av_td3_ros.ros.runtime import ros_environment
os.environ.update(ros_environment(os.environ))
import rclpy
from std_msgs.msg import String
rclpy.init()
node = rclpy.create_node(sys.argv[1])
node.create_publisher(String, '/secret', 1)
if sys.argv[1] == 'teller':
    print('ready', flush=True)
    sys.stdin.readline()
else:
    until = time.monotonic() + float(sys.argv[2])
    seen = False
    while time.monotonic() < until and not seen:
        seen = 'teller' in [one.node_name for one in node.get_publishers_info_by_topic('/secret')]
        time.sleep(0.05)
    print('found' if seen else 'not found', flush=True)
"""

CROWD = """
import os, sys, time
from av_td3_ros.ros.runtime import ros_environment
os.environ.update(ros_environment(os.environ))
import rclpy
from std_msgs.msg import Empty
count, nodes = int(sys.argv[1]), []
for number in range(count):
    context = rclpy.Context()
    rclpy.init(context=context)
    nodes.append(rclpy.create_node(f'one_{number}', context=context, enable_rosout=False,
                                   start_parameter_services=False))
    nodes[-1].create_publisher(Empty, '/many', 1)
until = time.monotonic() + 60
while nodes[-1].count_publishers('/many') < count and time.monotonic() < until:
    time.sleep(0.05)
print(nodes[-1].count_publishers('/many'), flush=True)
os._exit(0)
"""


def found(domain: int, seconds: float, **environment: str) -> bool:
    """Return whether a node elsewhere, on the same subnet, finds one that is started here."""
    ran = subprocess.run(
        ['unshare', '--map-root-user', '--net', 'bash', '-c', HOSTS], text=True,
        capture_output=True, check=False, timeout=120,
        env={**{key: value for key, value in os.environ.items()
                if key not in ('ROS_AUTOMATIC_DISCOVERY_RANGE', 'ROS_LOCALHOST_ONLY')},
             'PYTHON': sys.executable, 'NODE': NODE, 'SECONDS_TO_LISTEN': str(seconds),
             'ROS_DOMAIN_ID': str(domain), **environment})
    assert ran.returncode == 0 and 'found' in ran.stdout, ran.stdout + ran.stderr
    return 'not found' not in ran.stdout


@pytest.fixture
def namespaces() -> None:
    """Skip where this user cannot make a second host out of a network namespace."""
    if not shutil.which('ip') or not shutil.which('nsenter'):
        pytest.skip('needs ip and nsenter: sudo apt install iproute2 util-linux')
    made = subprocess.run(
        ['unshare', '--map-root-user', '--net', 'ip', 'link', 'add', 'a0', 'type', 'veth'],
        capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f'no network namespaces here: {made.stderr.strip()}')


def test_nobody_on_another_host_finds_us_unless_we_say_so(namespaces: None, domain: int) -> None:
    if not any(found(domain, 10.0, ROS_AUTOMATIC_DISCOVERY_RANGE='SUBNET') for _ in range(3)):
        pytest.skip('discovery does not get from one network namespace to the other here')
    assert not found(domain, 5.0)


def test_more_processes_than_ros_would_look_for_find_each_other_on_one_host(domain: int) -> None:
    heard = subprocess.run([sys.executable, '-c', CROWD, '34'], text=True, check=True, timeout=120,
                           capture_output=True, env={key: value for key, value in
                                                     os.environ.items()
                                                     if key != 'ROS_AUTOMATIC_DISCOVERY_RANGE'})
    assert heard.stdout.splitlines()[-1] == '34'


def test_the_entry_points_do_not_open_the_range(domain: int) -> None:
    said = subprocess.run(
        [sys.executable, '-c', 'import os; from av_td3_ros.cli.main import main; import sys; '
         'sys.argv = ["av-td3", "config", "mirror_node"]; \ntry: main()\nexcept SystemExit: pass\n'
         'print(os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"])'],
        capture_output=True, text=True, check=True, timeout=60,
        env={key: value for key, value in os.environ.items()
             if key not in ('ROS_AUTOMATIC_DISCOVERY_RANGE', 'ROS_LOCALHOST_ONLY')})
    assert said.stdout.splitlines()[-1] == 'LOCALHOST'
