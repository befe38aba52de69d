"""What is raised beside an open node, store or client comes out as itself; a data folder belongs to one process."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from overlay.identity import Identity
from overlay.settings import OverlaySettings
from registry.client.light import open_light_client
from registry.codes import Code
from registry.errors import InvalidValue, NodeUnavailable, StorageError
from registry.node import open_node
from registry.protocol.messages import Item
from registry.settings import NodeSettings, RegistrySettings
from registry.storage import open_store
from registry.storage.data_folder import claimed
from tests.simulation.nodes import simulated_nodes
from tests.unit.registry.builders import a_key

SETTINGS = NodeSettings(overlay=OverlaySettings(listen=("/ip4/127.0.0.1/tcp/0",)))


class Own(Exception):
    """What a block raises here."""


async def test_what_is_raised_beside_an_open_store_comes_out_as_itself(tmp_path: Path) -> None:
    with pytest.raises(Own):
        async with open_store(tmp_path / "registry.sqlite"):
            raise Own


async def test_what_is_raised_beside_an_assembled_node_comes_out_as_itself(autojump_clock) -> None:
    with pytest.raises(Own):
        async with simulated_nodes(2):
            raise Own


async def test_what_is_raised_beside_a_node_and_a_light_client_comes_out_as_itself(tmp_path: Path) -> None:
    async def raise_beside_both() -> None:
        async with (
            open_node(Identity.generate(), SETTINGS, tmp_path / "node") as node,
            open_light_client(Identity.generate(), node.peer.addresses()),
        ):
            raise Own

    with pytest.raises(Own):
        await raise_beside_both()


async def test_a_light_client_without_a_node_is_told_so_plainly() -> None:
    nowhere = f"/ip4/127.0.0.1/tcp/1/p2p/{Identity.generate().peer_id}"
    with pytest.raises(NodeUnavailable, match="no node could be reached"):
        async with open_light_client(Identity.generate(), [nowhere], timeout=2):
            raise AssertionError("there is no node")


async def test_a_light_client_with_an_address_that_is_none_is_told_so_plainly() -> None:
    with pytest.raises(InvalidValue, match="garbage"):
        async with open_light_client(Identity.generate(), ["garbage"], timeout=2):
            raise AssertionError("there is no node")


async def test_a_node_tells_in_its_status_that_its_disk_is_full(tmp_path: Path) -> None:
    small = NodeSettings(overlay=SETTINGS.overlay, registry=RegistrySettings(max_disk_bytes=8_000, sender_share=1.0))
    async with open_node(Identity.generate(), small, tmp_path) as node:
        disk = (await node.status()).disk
        assert disk is not None
        assert (disk.budget, disk.is_full, disk.refused) == (8_000, False, 0)
        key = a_key(created=int(time.time()))
        [error] = await node.parts.replica.ingest.store([Item(key)], "somebody")
        assert error is not None
        assert error.code == Code.DISK_FULL
        disk = (await node.status()).disk
        assert disk is not None
        assert (disk.is_full, disk.refused) == (True, 1)
        assert disk.used > disk.budget
        created = await node.registry.create_resource("own")
        assert created.resource_id is not None, "what the node itself stores always gets in"


async def test_a_second_node_on_one_data_folder_is_refused(tmp_path: Path) -> None:
    async with open_node(Identity.generate(), SETTINGS, tmp_path):
        with pytest.raises(StorageError, match="in use by another process"):
            async with open_node(Identity.generate(), SETTINGS, tmp_path):
                raise AssertionError("two nodes on one folder")
    async with open_node(Identity.generate(), SETTINGS, tmp_path):
        pass  # free again


def test_a_data_folder_belongs_to_one_process_until_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time, pathlib; from registry.storage.data_folder import claimed\n"
        "with claimed(pathlib.Path(sys.argv[1])):\n print('mine', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"mine\n"
        with pytest.raises(StorageError, match="in use by another process"), claimed(tmp_path):
            raise AssertionError("two processes on one folder")
    finally:
        other.kill()
        other.communicate()
    with claimed(tmp_path):
        pass
