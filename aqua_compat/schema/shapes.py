"""The JSON of what commands print and HTTP answers, where it isn't plainly a value's fields."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import cast

from aqua_compat.schema.json_codec import Json, to_json
from registry.client.results import Done
from registry.health.health_reader import UNTOLD, RecordHealth
from registry.health.state import Health
from registry.model.endpoints import Instance, Order, Selection, by_weight, endpoints_in, instances_in
from registry.model.names import Names
from registry.model.owner_index import ListedResource
from registry.model.values import Key, Record, Slot
from registry.permission.policy import FOR_EVER, AnyPolicy, UnknownPolicy, peer_of
from registry.watch.watch_event import WatchEvent


def created_as_json(resource_id: str, name: str) -> dict[str, Json]:
    """A resource that was created, or the id that a label has. `name`: as whoever asked calls it."""
    return {"resource_id": resource_id, "name": name}


def key_as_json(key: Key, names: Names) -> dict[str, Json]:
    """A resource's key, and what the resource is called by these `names`."""
    return {**_object(key), "name": names.name(key.label, key.owner_peer_id)}


def listed_as_json(resources: Iterable[ListedResource], after: str | None, names: Names) -> dict[str, Json]:
    """A page of an owner's resources, and the label after which the next one begins, null at the end."""
    shown: list[Json] = [{**_object(each), "name": names.name(each.label, each.owner_peer_id)} for each in resources]
    return {"resources": shown, "after": after}


def chosen(
    records: Sequence[Record],
    wanted: Selection,
    left_out: Mapping[Slot, Collection[str]] = MappingProxyType({}),
    order: Order = by_weight,
) -> dict[Record, tuple[Instance, ...]]:
    """The records that tell of instances that are wanted, with those; the first by `order` first, by default the
    heaviest. `left_out`: instances that don't work, by their record."""
    found: dict[Record, list[Instance]] = {}
    for endpoint in endpoints_in(records, wanted, order, left_out):
        found.setdefault(endpoint.record, []).append(endpoint.instance)
    return {record: tuple(instances) for record, instances in found.items()}


def resolved_as_json(
    records: Sequence[Record],
    instances: Mapping[Record, Sequence[Instance]] | None = None,
    health: Mapping[Slot, RecordHealth] | None = None,
    left_out: Mapping[Slot, Collection[str]] = MappingProxyType({}),
) -> Iterator[dict[str, Json]]:
    """The records of a resource, one by one, each with the instances of which its value tells: `instances` where some
    were chosen, of those records alone, else all but those `left_out`. With `health` each as `record`, with how it is
    beside it."""
    for record in records if instances is None else instances:
        told = instances_in(record.metadata.value) if instances is None else instances[record]
        unwanted = left_out.get(record.slot, ()) if instances is None else ()
        told = [instance for instance in told if instance.id not in unwanted]
        shown: dict[str, Json] = {**_object(record), "instances": to_json(told)}
        yield (
            shown
            if health is None
            else {
                "record": shown,
                "health": health_as_json(health.get(record.slot, UNTOLD)),
            }
        )


def health_as_json(known: RecordHealth) -> dict[str, Json]:
    """How a record is, and each of the instances that it names, by id. `up_or_down_for` in seconds, null where it isn't
    known; `stopped`: whether the host is down since it said itself that it stops; `since` in seconds since 1970."""
    instances: dict[str, Json] = {instance: _state_as_json(health) for instance, health in known.instances.items()}
    return {
        "up": known.is_up,
        "up_or_down_for": round(known.up_or_down_for, 1) if known.up_or_down_for < math.inf else None,
        "accusers": list(known.accusers),
        "stopped": known.has_left,
        **_state_as_json(known.health),
        **({"instances": instances} if instances else {}),
    }


def _state_as_json(health: Health) -> dict[str, Json]:
    return {"state": str(health.state), "since": health.since, "note": health.note}


def removed_as_json(resource_id: str) -> dict[str, Json]:
    """The JSON of a resource that was removed."""
    return {"removed": resource_id}


def registered_as_json() -> dict[str, Json]:
    """A service that was registered."""
    return {"success": True}


def unregistered_as_json(done: Done, host: str, until: int) -> dict[str, Json]:
    """A service that was unregistered: whether it was there, and who is denied on its host instead, if anybody, and
    until when."""
    end = None if until == FOR_EVER else until
    denied: dict[str, Json] = {"denied": list(done.denied), "host": host, "until": end} if done.denied else {}
    return {"success": True, "was_registered": done.was_there, **denied}


def watch_event_as_json(event: WatchEvent) -> dict[str, Json]:
    """`event`, then `records` of a snapshot, or `record`, how many changes of it were left out, and the reason where a
    policy, a certificate or this watcher's trust withholds it. `health` where there is presence, of a snapshot in each
    record."""
    shown: dict[str, Json] = {"event": event.kind.value}
    if event.record is None:
        return {**shown, "records": [snapshot_as_json(each, event.healths.get(each.slot)) for each in event.records]}
    shown |= {"record": to_json(event.record), "coalesced": event.coalesced}
    shown |= {"reason": event.reason} if event.reason else {}
    return shown if event.health is None else {**shown, "health": health_as_json(event.health)}


def snapshot_as_json(record: Record, health: RecordHealth | None) -> dict[str, Json]:
    """A record of a snapshot: its fields, and how it is, where there is presence."""
    return _object(record) if health is None else {**_object(record), "health": health_as_json(health)}


def policy_as_json(key: Key, names: Names) -> dict[str, Json]:
    """The JSON that tells who may register on a resource, and what that is called by these `names`."""
    return {
        "resource_id": key.id,
        "name": names.name(key.label, key.owner_peer_id),
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


def _object(value: Key | Record | ListedResource) -> dict[str, Json]:
    return cast("dict[str, Json]", to_json(value))
