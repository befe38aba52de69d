"""What those who operate a node ask: its figures, whether it lives and is ready, and targets for Prometheus."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec
import trio

from aqua_compat.http.message import JSON, HttpReply
from aqua_compat.http.metrics import MEDIA_TYPE, Exposition, Figures
from aqua_compat.http.problems import Problem
from overlay.tasks import in_thread
from registry.client.node_status import NodeStatus
from registry.codes import Code
from registry.health.health_reader import RecordHealth
from registry.model.endpoints import Instance, Selection, instances_in
from registry.model.names import Names
from registry.model.values import Record
from registry.node import Node

MOST_RESOURCES: Final = 16  # of one question for targets
TIMEOUT: Final = 5.0  # seconds for each
READY_FOR: Final = 1.0  # seconds for which what was found of readiness is told: anybody may ask, as often as he likes
LABEL: Final = "__meta_aqua_"
_NOT_IN_LABELS: Final = re.compile(r"[^a-zA-Z0-9_]")


class Monitoring:
    """Answers those questions."""

    def __init__(self, node: Node, names: Callable[[], Names], metrics: Exposition) -> None:
        """`names`: what names of resources mean at the moment."""
        self._node = node
        self._names = names
        self._metrics = metrics
        self._looking = trio.Lock()
        self._reasons: list[str] = []
        self._reasons_until = -math.inf

    async def metrics(self) -> HttpReply:
        """The node's figures."""
        status = await self._node.status()
        health = self._node.parts.health_of_hosts
        figures = Figures(
            status,
            is_isolated=self._node.peer.is_isolated(),
            is_ready=not self._not_ready(status),
            hosts_followed=health.followed,
            hosts_down=health.down,
        )
        return HttpReply(200, [("Content-Type", MEDIA_TYPE)], self._metrics.written(figures))

    async def ready(self) -> HttpReply:
        """Whether requests should be sent to this node, as it was at most `READY_FOR` before. Raises StorageError."""
        async with self._looking:  # those who ask meanwhile are told what the first one finds
            if trio.current_time() >= self._reasons_until:
                self._reasons = self._not_ready(await self._node.status())
                self._reasons_until = trio.current_time() + READY_FOR
        not_ready = self._reasons
        body = msgspec.json.encode({"ready": not not_ready, "not_ready": not_ready})
        return HttpReply(503 if not_ready else 200, [("Content-Type", JSON)], body)

    async def targets(self, names: Sequence[str], wanted: Selection, *, everything: bool) -> HttpReply:
        """Where the instances of resources are, as Prometheus's HTTP service discovery has it. Raises Problem."""
        if not 1 <= len(names) <= MOST_RESOURCES:
            raise Problem.invalid(f"resource: 1 to {MOST_RESOURCES} are asked for at once, not {len(names)}")
        groups: list[dict[str, Any]] = []
        for name in names:
            resource_id = self._names().resource_id(name)
            resolved = await self._node.registry.resolve_resource(resource_id, 1, timeout=TIMEOUT, include_down=True)
            if resolved.records is None and resolved.code in (Code.KEY_NOT_EXISTS, Code.KEY_REMOVED):
                continue  # not there yet, or any more: Prometheus goes on with the others
            if resolved.records is None:
                raise Problem.failed(resolved.code, resolved.errors, f"{name} wasn't resolved")
            for record, instances in zip(
                resolved.records, await in_thread(_instances, resolved.records, wanted), strict=True
            ):
                health = self._node.parts.health_of_hosts.health_of(record.slot, [each.id for each in instances])
                groups += [
                    {"targets": [each.location], "labels": _labels(name, record, each, health)}
                    for each in instances
                    if each.port and each.address and (everything or _is_usable(each, health))
                ]
        return HttpReply(200, [("Content-Type", JSON)], msgspec.json.encode(groups))

    def _not_ready(self, status: NodeStatus) -> list[str]:
        """Why requests shouldn't be sent to this node."""
        reasons = {
            "not joined": not status.ready,
            "isolated": self._node.peer.is_isolated(),
            "catching up": not status.caught_up,
            "clock": status.clock is not None and status.clock.is_off,
        }
        return [reason for reason, holds in reasons.items() if holds]


def _instances(records: Iterable[Record], wanted: Selection) -> list[list[Instance]]:
    return [[each for each in instances_in(record.metadata.value) if wanted.matches(each)] for record in records]


def _is_usable(instance: Instance, health: RecordHealth) -> bool:
    known = health.instances.get(instance.id)
    return health.is_usable and (known is None or known.state.is_usable)


def _labels(name: str, record: Record, instance: Instance, health: RecordHealth) -> dict[str, str]:
    known = health.instances.get(instance.id, health.health)
    labels = {
        "resource": name,
        "resource_id": record.slot.key_id,
        "host": record.slot.peer_id,
        "issuer": record.slot.issued_by,
        "instance": instance.id,
        "protocol": instance.protocol,
        "tags": f",{','.join(instance.tags)}," if instance.tags else "",
        "health": str(known.state) if health.is_up else "down",
        **{f"metadata_{_NOT_IN_LABELS.sub('_', key)}": text for key, text in instance.metadata.items()},
    }
    return {LABEL + key: text for key, text in labels.items()}
