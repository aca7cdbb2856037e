"""`av-td3 evaluate` as a user starts it: through the nodes, in one process, and stopped."""
from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

AV_TD3 = Path(sys.executable).with_name('av-td3')
SMALL = ('episodes.min_length=40', 'episodes.max_length=60', 'world.camera.width=96',
         'world.camera.height=72')
COMMAND = [str(AV_TD3), 'evaluate', '--policy', 'pursuit', '--map', 'loop', '--vehicles', '4',
           *(word for one in SMALL for word in ('--config', one))]


def evaluated(folder: Path, *options: str) -> dict[str, Any]:
    """Evaluate pursuit on two episodes; return what the JSON holds."""
    subprocess.run([*COMMAND, '--episodes', '2', '--out', str(folder), '--json',
                    str(folder.with_suffix('.json')), '--video', str(folder / 'drive.mp4'),
                    *options], check=True, timeout=120)
    found: dict[str, Any] = json.loads(folder.with_suffix('.json').read_text())
    return found


def test_through_the_nodes_and_in_process_the_numbers_are_the_same(domain: int, tmp_path: Path
                                                                   ) -> None:
    process = evaluated(tmp_path / 'process', '--in-process')
    through_nodes = evaluated(tmp_path / 'nodes')
    assert process == through_nodes
    assert [one['result'] for one in through_nodes['episodes']] == ['route_completed'] * 2
    assert all(len(one['path']) > 20 for one in through_nodes['episodes'])
    names = {path.name for path in (tmp_path / 'nodes').iterdir()}
    assert names >= {'evaluation.json', 'config.yaml', 'plots', 'logs', 'drive.mp4'}


def test_interrupted_it_leaves_no_process(domain: int, tmp_path: Path) -> None:
    process = psutil.Popen([*COMMAND, '--episodes', '1000', '--out', str(tmp_path / 'out')],
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60.0
        while len(process.children()) < 4 and time.monotonic() < until:
            time.sleep(0.1)
        nodes = process.children()
        assert len(nodes) == 4
        process.send_signal(signal.SIGINT)
        assert process.wait(30.0) == 130
        assert not any(one.is_running() for one in nodes)
    finally:
        if process.is_running():
            process.kill()
