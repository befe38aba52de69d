"""What is known of services, as Consul writes it: nodes are hosts, services on them instances, checks their health.

1. An instance has the check of its node, `serfHealth`, which is what presence says, and one of its own, which is what
   its host says of it. A state that isn't known is critical there: nobody is to be sent to it.
2. A record whose value tells of no instance isn't there: Consul's clients couldn't call it.
3. What changes without anybody's doing, such as for how long a host has been up, isn't told: only changes wake.
"""

from __future__ import annotations

import ipaddress
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from registry.health.health_reader import RecordHealth
from registry.health.state import HealthState
from registry.model.endpoints import Instance, instances_in
from registry.model.values import Record

Json = dict[str, Any]

NODE_CHECK: Final = "serfHealth"
_UP: Final = "Agent alive and reachable"
_DOWN: Final = "Agent not live or unreachable"
_INDEXES: Final = {"CreateIndex": 1, "ModifyIndex": 1}
"""Of single entries; a query's own is in the header."""
WRITTEN_AT_ONCE: Final = 64
"""Entries that are written before others have their turn: some 5 ms."""
STATES: Final = ("passing", "warning", "critical")


class Entry(NamedTuple):
    """One instance of a service. `health` is as `/v1/health/service` has it; `status` the worst of its checks; `tags`
    in lower case."""

    host: str
    service_id: str
    status: str
    tags: frozenset[str]
    health: Json

    @property
    def catalog(self) -> Json:
        """As `/v1/catalog/service` has it."""
        node, service = self.health["Node"], self.health["Service"]
        return {
            "ID": node["ID"],
            "Node": node["Node"],
            "Address": node["Address"],
            "Datacenter": node["Datacenter"],
            "TaggedAddresses": node["TaggedAddresses"],
            "NodeMeta": node["Meta"],
            "ServiceKind": "",
            "ServiceID": service["ID"],
            "ServiceName": service["Service"],
            "ServiceTags": service["Tags"],
            "ServiceAddress": service["Address"],
            "ServiceTaggedAddresses": {},
            "ServiceWeights": service["Weights"],
            "ServiceMeta": service["Meta"],
            "ServicePort": service["Port"],
            "ServiceEnableTagOverride": False,
            **_INDEXES,
        }


class EntryWriter:
    """Writes the entries of one datacenter."""

    def __init__(self, datacenter: str, addresses_of: Callable[[str], Sequence[str]]) -> None:
        """`addresses_of`: the multiaddrs of a peer, as far as known."""
        self.datacenter = datacenter
        self._addresses_of = addresses_of

    def node(self, peer_id: str, otherwise: str = "") -> Json:
        """A host. `otherwise`: its address, where none is known."""
        address = _best(self._addresses_of(peer_id)) or otherwise
        return {
            "ID": node_id(peer_id),
            "Node": peer_id,
            "Address": address,
            "Datacenter": self.datacenter,
            "TaggedAddresses": {"lan": address, "wan": address},
            "Meta": {},
            **_INDEXES,
        }

    def entries(self, label: str, record: Record, health_of: Callable[[Iterable[str]], RecordHealth]) -> list[Entry]:
        """The instances of which a record tells. `health_of`: the record's health, with that of these instances."""
        value = record.metadata.value
        instances = instances_in(value)
        if not instances:
            return []
        is_named = value.startswith("{")  # a plain address names no instance
        health = health_of([one.id for one in instances] if is_named else ())
        host = record.metadata.peer_id
        node = self.node(host, next((one.address for one in instances if one.address), ""))
        return [self._entry(label, host, node, one, health, is_named=is_named) for one in instances]

    def _entry(
        self, label: str, host: str, node: Json, instance: Instance, health: RecordHealth, *, is_named: bool
    ) -> Entry:
        service_id = instance.id if is_named else label
        own = health.instances.get(instance.id, health.health)
        state = str(own.state) if own.state is not HealthState.UNKNOWN else "critical"
        node_state = "passing" if health.is_up else "critical"
        tags = list(instance.tags)
        service = {
            "ID": service_id,
            "Service": label,
            "Tags": tags,
            "Address": instance.address,
            "TaggedAddresses": {},
            "Meta": dict(instance.metadata),
            "Port": instance.port,
            "Weights": {"Passing": instance.weight, "Warning": instance.weight},
            "EnableTagOverride": False,
            **_INDEXES,
        }
        checks = [
            node_check(host, is_up=health.is_up),
            check_of(
                host, f"service:{service_id}", f"Service '{label}' check", state, own.note, (service_id, label, tags)
            ),
        ]
        worst = max(state, node_state, key=STATES.index)
        return Entry(
            host,
            service_id,
            worst,
            frozenset(tag.lower() for tag in tags),
            {"Node": node, "Service": service, "Checks": checks},
        )


def node_check(host: str, *, is_up: bool) -> Json:
    """The check of a host itself."""
    return check_of(host, NODE_CHECK, "Serf Health Status", "passing" if is_up else "critical", _UP if is_up else _DOWN)


def check_of(
    host: str,
    check_id: str,
    name: str,
    status: str,
    output: str,
    service: tuple[str, str, Sequence[str]] = ("", "", ()),
) -> Json:
    """A check. `service`: the id, name and tags of the one that it is of; of the node without."""
    return {
        "Node": host,
        "CheckID": check_id,
        "Name": name,
        "Status": status,
        "Notes": "",
        "Output": output,
        "ServiceID": service[0],
        "ServiceName": service[1],
        "ServiceTags": list(service[2]),
        "Type": "",
        "Definition": {},
        **_INDEXES,
    }


def node_id(peer_id: str) -> str:
    """A peer's id in the form that Consul's nodes have."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, peer_id))


def _best(addresses: Sequence[str]) -> str:
    """The IP address to tell of a node: one that others reach rather than a private one, that rather than loopback."""
    found = [instance.address for address in sorted(addresses) for instance in instances_in(address)]
    return min(found, key=_reach, default="")


def _reach(address: str) -> int:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return 1  # a name
    return 3 if parsed.is_loopback or parsed.is_unspecified else 2 if parsed.is_private else 0


def _example() -> Json:
    service = ("", "", [""])
    writer = EntryWriter("", lambda _: ())
    checks = [check_of("", "", "", "passing", "", service)]
    return {
        "Node": writer.node(""),
        "Service": {
            "ID": "", "Service": "", "Tags": [""], "Address": "", "TaggedAddresses": {}, "Meta": {}, "Port": 0,
            "Weights": {"Passing": 1, "Warning": 1}, "EnableTagOverride": False,
        },
        "Checks": checks,
    }  # fmt: skip


HEALTH_EXAMPLE: Final[Mapping[str, Any]] = _example()
CATALOG_EXAMPLE: Final[Mapping[str, Any]] = Entry("", "", "passing", frozenset(), _example()).catalog
CHECK_EXAMPLE: Final[Mapping[str, Any]] = _example()["Checks"][0]
NODE_EXAMPLE: Final[Mapping[str, Any]] = _example()["Node"]
SERVICE_EXAMPLE: Final[Mapping[str, Any]] = _example()["Service"]
