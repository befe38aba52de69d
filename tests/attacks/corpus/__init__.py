"""The attacks that a node is tried with: each with free identities, over real sockets, by what anybody may send.

An attack is a function of a `Target` that goes on until it is cancelled, or raises what the node's defence made it fail
with; `sustained` begins it anew then, as a new peer. Each keeps a pace that leaves the attacker's own machine usable.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
import trio

from tests.attacks.corpus import announcements, hostile_calls, sockets, streams
from tests.attacks.corpus.target import Target

Attack = Callable[[Target], Awaitable[None]]

_AGAIN_AFTER: Final = 0.25  # seconds

ATTACKS: Final[dict[str, Attack]] = {
    attack.__name__: attack
    for attack in (
        sockets.random_bytes,
        sockets.bad_handshakes,
        sockets.slow_handshakes,
        sockets.churn,
        streams.muxer_pings,
        streams.stream_churn,
        streams.idle_streams,
        streams.filled_streams,
        streams.partial_frames,
        streams.junk_frames,
        streams.unread_answers,
        streams.slow_readers,
        streams.idle_identities,
        announcements.gossip_flood,
        announcements.forged_gossip,
        hostile_calls.put_flood,
        hostile_calls.small_puts,
        hostile_calls.forged_puts,
        hostile_calls.tombstone_flood,
        hostile_calls.writes_through_the_node,
        hostile_calls.large_comparisons,
        hostile_calls.reads_of_nothing,
        hostile_calls.large_reads,
        hostile_calls.huge_arguments,
        hostile_calls.subscriptions,
        hostile_calls.lookups,
        hostile_calls.kad_queries,
    )
}


async def sustained(attack: Attack, target: Target) -> None:
    """Attack until cancelled, beginning anew under a new identity as often as the node puts an end to it."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    while True:
        try:
            await attack(target)
        except Exception as error:  # whatever the node's defence leads to
            target.done["ended"] += 1
            target.done[f"ended by {_cause(error)}"] += 1
        await trio.sleep(_AGAIN_AFTER)


def _cause(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"[:80]
