"""The relay's builtins, as a script of an original client sees them."""

from __future__ import annotations

import time
from hashlib import sha256

import base58
import pytest

from overlay.identity import Identity
from tests.aqua.js_peer import CallFailed, JsProcess
from tests.aqua.nodes import AquaNetwork, websocket

pytestmark = pytest.mark.timeout(300)  # the first test also installs


async def test_builtins_answer_as_aqua_lib_says(network: AquaNetwork, js: JsProcess) -> None:
    relay = network.nodes[0]
    async with js.peer(websocket(relay)) as peer:
        text = "grüße"
        said = await peer.call("builtins", text, Identity.generate().peer_id)
    assert said["b58"] == base58.b58encode(text.encode()).decode()
    assert said["text"] == said["same"] == text
    assert said["hash"] == base58.b58encode(b"\x12\x20" + sha256(text.encode()).digest()).decode()
    assert (said["joined"], said["length"], said["all"]) == (text + "!", 2, [text, "b", "d"])
    assert said["air_version"]
    assert (said["itself"], said["stranger"]) == (True, False)
    others = {node.peer_id for node in network.nodes[1:]}
    assert set(said["neighbours"]) == others, "all of a small network but the relay itself"
    assert said["few"] == said["neighbours"][:2]
    assert said["merged"] == said["neighbours"]
    assert said["signer"] == relay.peer_id


async def test_the_package_of_the_trust_graph_works_unmodified(network: AquaNetwork, js: JsProcess) -> None:
    async with js.peer(websocket(network.nodes[0])) as peer:
        told = await peer.call("trusting", peer.peer_id, Identity.generate().peer_id, int(time.time()) + 100)
    assert (told["issuing"], told["importing"]) == (None, None)
    assert (told["verified"], told["certificates"]) == (True, True)
    assert (told["weight"], told["weight_from"]) == (0, 0), "the node knows no roots"
    assert told["rooting"] == "Root could add only by trust graph service owner"
    assert told["revoking"] == f"{peer.peer_id} revokes and has no weight here, so that it ends nothing"


async def test_a_call_of_a_missing_service_fails_as_in_the_original(network: AquaNetwork, js: JsProcess) -> None:
    async with js.peer(websocket(network.nodes[0])) as peer:
        with pytest.raises(CallFailed) as failed:
            await peer.call("callNobody", "you")
    [error] = failed.value.args
    assert error["error_code"] == 10000
    assert "Service with id 'nobody' not found (function greet)" in error["message"]
    assert error["peer_id"] == network.nodes[0].peer_id
