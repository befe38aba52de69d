"""executeOnResource and calls by hand, where other JS clients are the providers."""

from __future__ import annotations

import pytest
import trio

from tests.aqua.js_peer import JsProcess
from tests.aqua.nodes import AquaNetwork, websocket
from tests.aqua.test_scenarios import label, resolved

pytestmark = pytest.mark.timeout(300)  # the first test also installs


async def test_every_provider_on_a_resource_is_called_through_its_relay(network: AquaNetwork, js: JsProcess) -> None:
    first, second, third = (websocket(node) for node in network.nodes[:3])
    async with js.peer(first) as caller, js.peer(second) as polite, js.peer(third) as hasty:
        resource_id, errors = await caller.call("createResource", label())
        assert resource_id is not None, errors
        for provider, greeting in ((polite, "Good morning"), (hasty, "Hi")):
            await provider.serve("a greeter", greeting)
            done, errors = await provider.call("registerService", resource_id, "", provider.peer_id, "a greeter")
            assert done, errors
        await resolved(caller, resource_id, 1, 2)
        expected = [f"Good morning, {caller.peer_id}", f"Hi, {caller.peer_id}"]
        done, errors = await caller.call("haveAllGreet", resource_id, 1)
        assert done, errors
        with trio.fail_after(10):
            heard = [await caller.heard.receive(), await caller.heard.receive()]
        assert sorted(heard) == expected
        greetings, errors = await caller.call("greetings", resource_id, 2, 10_000)
        assert sorted(greetings) == expected, errors
        for provider in (polite, hasty):
            assert [provider.called.receive_nowait() for _ in range(2)] == [caller.peer_id] * 2


async def test_a_provider_without_the_service_leaves_the_others_be(network: AquaNetwork, js: JsProcess) -> None:
    first, second = (websocket(node) for node in network.nodes[:2])
    async with js.peer(first) as provider, js.peer(second) as empty:
        await provider.serve("a greeter", "Hello")
        resource_id, done, errors = await provider.call("createAndRegister", label(), "", provider.peer_id, "a greeter")
        assert done, errors
        done, errors = await empty.call("registerService", resource_id, "", empty.peer_id, "a greeter")
        assert done, errors
        await resolved(empty, resource_id, 1, 2)
        greetings, errors = await empty.call("greetings", resource_id, 1, 10_000)
        assert greetings == [f"Hello, {empty.peer_id}"], errors
