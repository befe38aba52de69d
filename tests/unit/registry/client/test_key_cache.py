"""Keys are remembered for a while, in a bounded memory."""

from __future__ import annotations

import msgspec
from trio.testing import MockClock

from registry.client.key_cache import REMEMBERED, REMEMBERED_FOR, KeyCache
from registry.model.values import Key
from tests.unit.registry.builders import OWNER


def key(number: int) -> Key:
    return Key(f"label {number}", OWNER.peer_id, 1, b"", "", b"")


async def test_key_is_asked_for_again_after_a_while(mock_clock: MockClock) -> None:
    keys = KeyCache()
    keys.remember(key(1))
    mock_clock.jump(REMEMBERED_FOR - 1)
    assert keys.get(key(1).id) == key(1)
    mock_clock.jump(1)
    assert keys.get(key(1).id) is None


async def test_key_with_which_a_write_failed_is_forgotten() -> None:
    keys = KeyCache()
    keys.remember(key(1))
    keys.forget(key(1).id)
    assert keys.get(key(1).id) is None


async def test_a_later_key_stays_when_an_earlier_one_is_told_afterwards() -> None:
    keys, later = KeyCache(), msgspec.structs.replace(key(1), timestamp_created=2)
    keys.remember(later)
    keys.remember(key(1))
    assert keys.get(later.id) == later


async def test_keys_longest_not_seen_make_room() -> None:
    keys = KeyCache()
    for number in range(REMEMBERED):
        keys.remember(key(number))
    keys.remember(key(0))
    keys.remember(key(REMEMBERED))
    assert keys.get(key(0).id) is not None
    assert keys.get(key(1).id) is None
