"""executeOnResource, where other JS clients are the providers."""

from __future__ import annotations

import pytest

from tests.aqua.js_peer import js_peer
from tests.aqua.nodes import AquaNetwork, websocket
from tests.aqua.npm import Tools
from tests.aqua.test_scenarios import label, resolved

pytestmark = pytest.mark.timeout(300)  # the first test also installs


async def test_every_provider_on_a_resource_is_called_through_its_relay(network: AquaNetwork, js: Tools) -> None:
    first, second, third = (websocket(node) for node in network.nodes[:3])
    async with js_peer(js, first) as caller, js_peer(js, second) as polite, js_peer(js, third) as hasty:
        resource_id, errors = await caller.call("createResource", label())
        assert resource_id is not None, errors
        for provider, greeting in ((polite, "Good morning"), (hasty, "Hi")):
            await provider.serve("a greeter", greeting)
            done, errors = await provider.call("registerService", resource_id, "", provider.peer_id, "a greeter")
            assert done, errors
        await resolved(caller, resource_id, 1, 2)
        greetings, errors = await caller.call("greetAll", resource_id, 5, "Ada", 2, 10_000)
        assert sorted(greetings) == ["Good morning, Ada", "Hi, Ada"], errors
        assert [provider.called.receive_nowait() for provider in (polite, hasty)] == ["Ada", "Ada"]


async def test_a_provider_without_the_service_leaves_the_others_be(network: AquaNetwork, js: Tools) -> None:
    first, second = (websocket(node) for node in network.nodes[:2])
    async with js_peer(js, first) as provider, js_peer(js, second) as empty:
        await provider.serve("a greeter", "Hello")
        made = await provider.call("createAndRegister", label(), "", provider.peer_id, "a greeter")
        assert made["registered"], made
        done, errors = await empty.call("registerService", made["resource_id"], "", empty.peer_id, "a greeter")
        assert done, errors
        await resolved(empty, made["resource_id"], 1, 2)
        greetings, errors = await empty.call("greetAll", made["resource_id"], 5, "you", 1, 10_000)
        assert greetings == ["Hello, you"], errors
