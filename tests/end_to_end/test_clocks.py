"""A process whose clock is wrong, in a network of others: what it says, what it leaves undone, and how it recovers."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from aqua_compat import Constants, connect
from registry.client.node_status import NodeStatus
from tests.end_to_end.network import Network, command, eventually, first_line, launched

NODE = Path(__file__).with_name("clock_node.py")
RECOVERED_WITHIN = 10.0  # seconds after the clock was set


def _is_off_by_all(status: NodeStatus) -> bool:
    return status.clock.is_off and str(status.clock) == "172,800 s ahead of 4 peers'"


@pytest.mark.timeout(240)
async def test_a_node_two_days_ahead_says_so_signs_nothing_and_recovers_when_its_clock_is_set(tmp_path: Path) -> None:
    network = Network(tmp_path, 4)
    await network.start()
    try:
        addresses = [node.address for node in network.nodes]
        async with (
            launched(
                sys.executable,
                str(NODE),
                str(tmp_path / "sick"),
                "172800",
                *addresses,
                home=tmp_path,
                log=tmp_path / "sick.log",
                stdin=subprocess.PIPE,
            ) as sick,
            connect(addresses[0], constants=Constants(INITIAL_REPLICATION_FACTOR=3)) as well,
        ):
            address = await first_line(sick)
            async with connect(address) as visitor:
                told = await eventually(visitor.registry.status, _is_off_by_all, timeout=20)
                assert not told.caught_up
                peers = await command("peers", "--relay", address, home=tmp_path)
                assert "clock    172,800 s ahead of 4 peers': set it" in peers.out

                resource_id, errors = await well.createResource("sick host")
                assert resource_id is not None, errors
                done, errors = await well.registerService(resource_id, "hosted", told.peer_id, None)
                assert not done
                assert "this machine's clock is 172,800 s ahead of 4 peers'; set it" in errors[0]
                done, errors = await well.registerService(resource_id, "own", well.peer_id, None)
                assert done, errors

                assert sick.stdin is not None
                await sick.stdin.send_all(b"0\n")
                await eventually(
                    visitor.registry.status,
                    lambda status: not status.clock.is_off and status.caught_up,
                    timeout=RECOVERED_WITHIN,
                )
                stored = await visitor.registry.on_host("get_records", resource_id, None)
                assert [record.metadata.value for record in stored.result] == ["own"]
                registered = partial(well.registerService, resource_id, "hosted", told.peer_id, None)
                assert await registered() == (True, [])
        log = (tmp_path / "sick.log").read_text()
        assert log.count("this machine's clock is off") == 1
        assert log.count("this machine's clock is right again") == 1
    finally:
        await network.stop()
