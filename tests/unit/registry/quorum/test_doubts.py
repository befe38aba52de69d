"""Who is doubted: by its own word, or for what nobody signed."""

from __future__ import annotations

import trio
import trio.testing

from registry.protocol.messages import Item
from registry.quorum.doubts import DOUBTED_FOR, Doubts
from tests.unit.registry.builders import HOST, OWNER, a_key, a_record

KEY = a_key()
ITEM = Item(KEY, a_record(KEY.id))
OTHER = Item(KEY, a_record(KEY.id, issuer=OWNER, host=HOST))


async def test_a_peer_that_lacks_what_it_said_it_has_is_doubted_for_a_while(
    autojump_clock: trio.testing.MockClock,
) -> None:
    doubts = Doubts()
    doubts.note_stored("liar", ITEM)
    await trio.sleep(1)
    doubts.note_lacked("liar", [OTHER, ITEM], trio.current_time())
    assert doubts.is_doubted("liar")
    await trio.sleep(DOUBTED_FOR + 1)
    assert not doubts.is_doubted("liar")


async def test_what_somebody_else_shows_makes_nobody_doubted(autojump_clock: trio.testing.MockClock) -> None:
    doubts = Doubts()
    doubts.note_stored("honest", ITEM)
    doubts.note_stored("liar", OTHER)
    await trio.sleep(1)
    doubts.note_lacked("honest", [OTHER], trio.current_time())
    assert not doubts.is_doubted("honest")


async def test_an_answer_asked_for_before_it_was_stored_proves_nothing(autojump_clock: trio.testing.MockClock) -> None:
    doubts, asked_at = Doubts(), trio.current_time()
    await trio.sleep(1)
    doubts.note_stored("slow", ITEM)
    doubts.note_lacked("slow", [ITEM], asked_at)
    assert not doubts.is_doubted("slow")


async def test_who_shows_what_nobody_signed_is_doubted() -> None:
    doubts = Doubts()
    doubts.note_invented("liar")
    assert doubts.is_doubted("liar")
    assert not doubts.is_doubted("honest")
