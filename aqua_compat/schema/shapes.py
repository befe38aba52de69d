"""The JSON of what commands print and HTTP answers, where it isn't plainly a value's fields."""

from __future__ import annotations

from aqua_compat.schema.json_codec import Json, to_json
from registry.client.results import Done
from registry.model.history import HistoryEvent
from registry.model.values import Key
from registry.permission.policy import FOR_EVER, AnyPolicy, UnknownPolicy, peer_of
from registry.watch.watch_event import WatchEvent


def created_as_json(resource_id: str) -> dict[str, Json]:
    """A resource that was created, or the id that a label has."""
    return {"resource_id": resource_id}


def removed_as_json(resource_id: str) -> dict[str, Json]:
    """A resource that was removed."""
    return {"removed": resource_id}


def registered_as_json() -> dict[str, Json]:
    """A service that was registered."""
    return {"success": True}


def unregistered_as_json(done: Done) -> dict[str, Json]:
    """A service that was unregistered: whether it was there, and who is denied from now on instead, if anybody."""
    denied: dict[str, Json] = {"denied": list(done.denied)} if done.denied else {}
    return {"success": True, "was_registered": done.was_there, **denied}


def history_as_json(event: HistoryEvent) -> Json:
    """What happened to a resource."""
    return to_json(event)


def watch_event_as_json(event: WatchEvent) -> dict[str, Json]:
    """`event`, then `records` of a snapshot, or `record`, how many changes of it were left out, and the reason where a
    policy, a certificate or this watcher's trust withholds it."""
    shown: dict[str, Json] = {"event": event.kind.value}
    if event.record is None:
        return {**shown, "records": to_json(list(event.records))}
    shown |= {"record": to_json(event.record), "coalesced": event.coalesced}
    return {**shown, "reason": event.reason} if event.reason else shown


def policy_as_json(key: Key) -> dict[str, Json]:
    """Who may register on a resource."""
    return {
        "resource_id": key.id,
        "label": key.label,
        "owner": key.owner_peer_id,
        "policy": None if key.policy is None else _policy(key.policy),
    }


def _policy(shown: AnyPolicy) -> dict[str, Json]:
    if isinstance(shown, UnknownPolicy):
        return {"revision": shown.revision, "known": False}
    return {
        "revision": shown.revision,
        "known": True,
        "open": shown.open,
        "allow": list(map(peer_of, shown.allow)),
        "roots": list(map(peer_of, shown.roots)),
        "deny": [
            {
                "issuer": peer_of(each.issuer),
                "host": peer_of(each.host) if each.host else None,
                "until": None if each.until == FOR_EVER else each.until,
            }
            for each in shown.deny
        ],
        "hosts": list(map(peer_of, shown.hosts)),
        "longest_chain": shown.longest_chain,
    }
