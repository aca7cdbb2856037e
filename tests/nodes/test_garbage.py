"""Garbage in messages: no node dies of it, all of it is counted, a good one is answered."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Log, Peer, Running, await_that
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParameters
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String

from av_td3_ros.driving.camera.image import ImageError, decode_compressed
from av_td3_ros.ros import qos
from av_td3_ros.ros.inputs import Inputs
from benchmarks import _faults_input
from benchmarks._faults_input import TARGETS, bomb, feed, picture, png_bomb

FEW = ('environment_node of a real vehicle', 'control_node', 'recorder_node', 'mirror_node')


@pytest.mark.parametrize('name', FEW)
def test_a_node_survives_garbage_and_answers_what_is_good(name: str, domain: int, tmp_path: Path
                                                          ) -> None:
    result = feed(TARGETS[name], 300, domain, tmp_path)
    assert not result.deaths and not result.deaf
    assert sum(result.received.values()) >= 300
    assert sum(result.refused.values()) > 0
    assert result.chatter <= 1.1
    assert result.grown < _faults_input.MEMORY


def test_what_rclpy_itself_would_die_of_is_refused(peer: Peer, make: Callable[..., Running],
                                                   log: Log) -> None:
    node = make('stand_in_vehicle_node', profile='vehicle_in_the_loop_bench')
    node.spin()
    request = SetParameters.Request(parameters=[Parameter(
        name='rate', value=ParameterValue(type=200))])
    name = node.node.get_fully_qualified_name()
    assert not peer.ask(SetParameters, f'{name}/set_parameters', request).results
    assert '200 is not a valid Parameter.Type' in log.next('set parameters refused')
    assert peer.set_parameter(name, 'rate', 10.0).reason  # it still answers


def test_refusals_are_counted_by_topic_and_told_once_a_second(
        peer: Peer, make: Callable[..., Running], log: Log) -> None:
    node = make('stand_in_vehicle_node', profile='vehicle_in_the_loop_bench')

    def hear(message: String) -> None:
        if message.data == 'worse':
            raise KeyError(message.data)
        raise ValueError(f'{message.data} is no\nword ' + 'x' * 5000)

    inputs = Inputs(node.node)
    inputs.listen(String, '~/input/word', hear, qos.EVENT)
    node.spin()
    say = peer.speak(String, f'{node.node.get_fully_qualified_name()}/input/word', qos.EVENT)
    for _ in range(20):
        say(String(data='this'))
    line = log.next('word refused')
    assert 'this is no word xxx' in line and len(line) < 1000
    await_that(lambda: inputs.refused('word') == 20, 'all of them')
    say(String(data='worse'))
    await_that(lambda: inputs.refused() == 21, 'the one that nobody foresaw')
    assert inputs.tell().message.startswith('21 messages refused since the last look; word: '
                                            'KeyError at test_garbage.py:')
    assert inputs.tell().message == 'nothing refused since the last look'
    place = f'{node.node.get_fully_qualified_name()}/input/word'
    assert inputs.tell().values[place] == '21 received, 21 refused'


@pytest.mark.parametrize('data', [bomb(), png_bomb()])
def test_a_compressed_image_that_claims_gigabytes_is_not_decoded(data: bytes) -> None:
    with pytest.raises(ImageError, match='says that it is'):
        decode_compressed(data)


@pytest.mark.parametrize('kind', ['.jpg', '.png'])
def test_a_compressed_image_is_decoded_cut_off_anywhere_or_refused(kind: str) -> None:
    data = picture(kind)
    assert decode_compressed(CompressedImage(data=data).data).shape == (120, 160, 3)
    for end in range(0, len(data), max(len(data) // 200, 1)):
        try:
            assert decode_compressed(data[:end]).shape == (120, 160, 3)
        except ImageError as error:
            assert f'{end} bytes' in str(error)
