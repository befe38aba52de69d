"""What is to be registered for the services of a machine: of each resource one record, which tells of all instances."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from aqua_compat.agent.definitions import OnStop, ServiceDefinition
from registry.model.endpoints import Instance, write_instances


class Registration(NamedTuple):
    """What is to be registered on one resource."""

    key_id: str
    label: str
    owner: str
    value: str
    stays: bool
    services: tuple[tuple[str, str], ...]
    """Of each instance: its id, and that of its service."""
    is_checked: bool
    sources: tuple[str, ...]
    """What defines it."""


def registrations_of(services: Iterable[ServiceDefinition], address: str) -> dict[str, Registration]:
    """What is to be registered, by resource (rule 1). `address`: of instances that have a port and no address."""
    together: dict[str, list[ServiceDefinition]] = {}
    for service in services:
        together.setdefault(service.key_id, []).append(service)
    return {
        key_id: Registration(
            key_id,
            parts[0].label,
            parts[0].owner,
            write_instances([_located(one.instance, address) for part in parts for one in part.instances]),
            any(part.on_stop is OnStop.STAY for part in parts),
            tuple((one.instance.id, part.id) for part in parts for one in part.instances),
            any(one.checks for part in parts for one in part.instances),
            tuple(dict.fromkeys(part.source for part in parts)),
        )
        for key_id, parts in together.items()
    }


def _located(instance: Instance, address: str) -> Instance:
    return instance if instance.address or not instance.port else msgspec.structs.replace(instance, address=address)
