"""`connect` and `node`: where they can be used, and what they take."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from aqua_compat import (
    AquaClient,
    Edit,
    EditKind,
    Identity,
    NodeSettings,
    NoProvider,
    Trusted,
    certify,
    connect,
    node,
    save_chain,
    scope_of,
)


@pytest.mark.parametrize("way_in", ["client", "node"])
def test_outside_trio_it_is_told_what_to_use(way_in: str, tmp_path: Path) -> None:
    async def enter(context: AbstractAsyncContextManager[AquaClient]) -> None:
        async with context:
            pass

    with pytest.raises(RuntimeError, match=r"Trio.*BlockingClient"):
        asyncio.run(enter(connect("/ip4/127.0.0.1/tcp/1") if way_in == "client" else node(tmp_path)))


async def test_a_data_folder_may_be_given_as_text(tmp_path: Path) -> None:
    async with node(str(tmp_path / "node")) as aqua:
        told = await aqua.on(aqua.peer_id).call("peer", "identify")
        async with connect(told["external_addresses"], data_dir=str(tmp_path / "light")):
            pass
    assert (tmp_path / "node" / "identity.json").exists()
    assert (tmp_path / "light").is_dir()


@pytest.mark.parametrize("way_in", ["setting", "option", "client"])
async def test_certificates_are_taken_from_a_folder(way_in: str, tmp_path: Path) -> None:
    owner, issuer, folder = Identity.generate(), Identity.generate(), tmp_path / "certificates"
    folder.mkdir()
    settings = NodeSettings(certificates=str(folder) if way_in == "setting" else "")
    option = folder if way_in == "option" else None
    async with node(tmp_path / "node", identity=issuer, settings=settings, certificates=option) as aqua:
        told = await aqua.on(aqua.peer_id).call("peer", "identify")
        async with (
            connect(told["external_addresses"], identity=owner) as owning,
            connect(told["external_addresses"], certificates=str(folder)) as client,
        ):
            resource_id, errors = await owning.createResource("payments")
            assert resource_id is not None, errors
            assert (await owning.registry.change_policy(resource_id, [Edit(EditKind.CLOSE)])).success
            acting = client if way_in == "client" else aqua
            refused = await acting.registerService(resource_id, "", acting.peer_id, "service")
            assert refused[0] is False
            assert "(issuer-not-allowed)" in refused[1][0]
            scope = scope_of("payments", owner.peer_id)
            save_chain(folder / "a.cert", [certify(owner, acting.peer_id, scope, now=time.time(), lasts=600)])
            assert await acting.registerService(resource_id, "", acting.peer_id, "service") == (True, [])
            assert len(await owning.resolve(resource_id, trusted=Trusted(roots=[owner.peer_id]))) == 1
            assert await owning.resolve(resource_id, trusted=[owner.peer_id]) == []
            assert await owning.reachable(resource_id, trusted=[owner.peer_id]) == []
            with pytest.raises(NoProvider, match="nobody is registered"):
                await owning.call_any(resource_id, "pay", trusted=[owner.peer_id])
            assert await owning.call_all(resource_id, "pay", trusted=lambda record: False) == []
            async with owning.watch(resource_id, trusted=[owner.peer_id]) as events:
                assert (await anext(events)).records == ()
            with pytest.raises(ValueError, match="trusted: not the peer id"):
                await owning.resolve(resource_id, trusted=["nobody"])
