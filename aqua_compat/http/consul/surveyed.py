"""What is told of all services of an owner, out of one look at them (`catalog`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from aqua_compat.http.consul.catalog import Survey
from aqua_compat.http.consul.entries import node_check
from aqua_compat.http.consul.expression import Term
from aqua_compat.http.consul.selection import filtered

NodeOf = Callable[[str], Any]
"""Writes a host, by its id."""
Members = Callable[[], Sequence[str]]
"""Who is a member at the moment: of a query that waits, other ones each time."""


async def services_in(survey: Survey, *, term: Term | None) -> dict[str, list[str]]:
    """The tags of each service."""
    told: dict[str, list[str]] = {}
    for label, entries in survey.services.items():
        kept = await filtered(list(entries), term, lambda entry: entry.health["Service"])
        if kept:
            told[label] = sorted({tag for entry in kept for tag in entry.health["Service"]["Tags"]})
    return told


async def nodes_in(survey: Survey, *, members: Members, node: NodeOf, term: Term | None) -> list[Any]:
    """The hosts of services, and the members of the network."""
    found = {entry.host: entry.health["Node"] for entries in survey.services.values() for entry in entries}
    for peer_id in members():
        found.setdefault(peer_id, node(peer_id))
    return await filtered([found[peer_id] for peer_id in sorted(found)], term)


async def checks_of_node(survey: Survey, *, name: str, members: Members, term: Term | None) -> list[Any]:
    """The checks of a host and of what is on it; of a member also where nothing is."""
    entries = [entry for all_of in survey.services.values() for entry in all_of if entry.host == name]
    own = [entry.health["Checks"][1] for entry in entries]
    of_host = [entry.health["Checks"][0] for entry in entries[:1]]
    if not of_host and name in members():
        of_host = [node_check(name, is_up=True)]
    return await filtered([*of_host, *own], term)


async def services_of_node(survey: Survey, *, name: str, members: Members, node: NodeOf, term: Term | None) -> Any:
    """A host and what is on it; None where nothing is and it is no member."""
    entries = [entry for all_of in survey.services.values() for entry in all_of if entry.host == name]
    if not entries and name not in members():
        return None
    services: dict[str, Any] = {}
    for entry in entries:
        service = entry.health["Service"]
        key = service["ID"] if service["ID"] not in services else f"{service['Service']}/{service['ID']}"
        services[key] = service
    kept = await filtered(list(services.items()), term, lambda item: item[1])
    told = entries[0].health["Node"] if entries else node(name)
    return {"Node": told, "Services": dict(kept)}


async def checks_in(survey: Survey, *, state: str, members: Members, term: Term | None) -> list[Any]:
    """All checks in a state, or in any, those of the members of the network among them."""
    checks: list[Any] = []
    hosts: dict[str, Any] = {member: node_check(member, is_up=True) for member in members()}
    for entries in survey.services.values():
        for entry in entries:
            hosts[entry.host] = entry.health["Checks"][0]
            checks.append(entry.health["Checks"][1])
    told = [*(hosts[host] for host in sorted(hosts)), *checks]
    return await filtered([one for one in told if state in ("any", one["Status"])], term)
