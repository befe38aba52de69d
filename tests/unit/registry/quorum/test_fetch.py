"""What is made of a replica's answer to a read, however it was put together."""

from __future__ import annotations

from typing import cast

import msgspec
import trio

from registry.model.merge import ResourceState
from registry.model.values import encode
from registry.protocol.messages import MAX_STATES, StatePage, build
from registry.protocol.network import Network
from registry.quorum.fetch import Fetcher
from registry.settings import RegistrySettings
from tests.unit.longest_turn import LongestTurn
from tests.unit.registry.builders import HOST, NOW, a_key, a_tombstone, identity

KEY = a_key()


class Telling:
    """A network with one replica, which always tells the same."""

    def __init__(self, page: StatePage) -> None:
        self._page = build(page)

    async def call(self, *_: object, timeout: float) -> object:
        await trio.lowlevel.checkpoint()
        return self._page


async def test_thousands_of_states_of_which_half_are_forged_hold_nobody_up() -> None:
    """All were decoded in one turn, and each bad one looked for among all good ones in another: 40 ms and more."""
    good = [a_tombstone(KEY.id, issuer=identity(100 + number), host=HOST) for number in range(MAX_STATES // 2)]
    forged = [msgspec.structs.replace(state, issuer_signature=bytes(64)) for state in good]
    page = StatePage(True, False, encode(KEY), tuple(map(encode, [*good, *forged])), False)
    invented: list[str] = []
    fetcher = Fetcher(cast("Network", Telling(page)), RegistrySettings(), lambda: NOW + 1, invented.append)
    turns = LongestTurn()
    trio.lowlevel.add_instrument(turns)
    try:
        found, _ = await fetcher.fetch("replica", KEY.id, ResourceState(), timeout=10)
    finally:
        trio.lowlevel.remove_instrument(turns)
    assert found.key == KEY
    assert len(found.slots) == len(good)
    assert set(invented) == {"replica"}
    assert turns.longest < 0.035
