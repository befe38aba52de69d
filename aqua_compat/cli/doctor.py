"""`aqua-registry doctor`: looks for what is wrong with nodes and their machine, and says what to do about it."""

from __future__ import annotations

import os
import resource
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import click

from aqua_compat.cli.failures import Failure, Misuse, one_line, root_of
from aqua_compat.cli.options import json_option, network_options
from aqua_compat.cli.output import counted, json_line, moment
from aqua_compat.cli.session import CommandSession

if TYPE_CHECKING:
    from registry.client.node_status import NodeStatus

# Commands import what they need when they run: `--help` is to answer at once.
# ruff: noqa: PLC0415

ENOUGH_FILES: Final = 4096
"""Descriptors that a node may need: links, light clients, streams that wait."""
SOON: Final = 3 * 86_400
"""Seconds before a certificate's end from which it is told."""
NEARLY_FULL: Final = 0.8
TRIED_WITHIN: Final = 60.0
"""Seconds in which members have dialled a node that they can dial."""
_WIDTH: Final = 8  # of the first column
_PATIENCE: Final = 15.0  # seconds for one name

Level = Literal["ok", "warning", "problem"]


class Finding(NamedTuple):
    """One thing that was looked at."""

    level: Level
    about: str
    text: str
    """What was found, and what to do about it."""


@click.command(short_help="Look for what is wrong, and say what to do.")
@click.option(
    "--data-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    envvar="AQUA_REGISTRY_DATA_DIR",
    help="Data folder of a node on this machine, whose disk is looked at.  [default: that of the node it looks at, if"
    " that runs here]",
)
@click.option(
    "--bootstrap",
    multiple=True,
    metavar="ADDRESS",
    help="What a node here is to join through: looked up by its name. Repeatable.",
)
@json_option
@network_options()
def doctor(session: CommandSession, data_dir: Path | None, bootstrap: tuple[str, ...], as_json: bool) -> None:
    """Look for what is wrong with the nodes at --relay, or the one on this machine, and with this machine.

    Each is told with what to do about it.

    Exit code 1 when there is a problem, 0 when there are warnings at most.
    """
    session.configure_logs()
    if data_dir is None:
        with suppress(Failure):  # which is told below
            data_dir = node.folder if (node := session.node_here()) is not None else None
    findings = _of_names(bootstrap) if bootstrap else []
    statuses: list[NodeStatus] = []
    relays: Sequence[str] = ()
    try:
        relays = session.relays or session.addresses()[:1]  # all of the one node on this machine
    except Failure as failure:
        findings.append(Finding("problem", "node", failure.format_message()))
    for relay in relays:
        status = _status_of(session, relay)
        if isinstance(status, Finding):
            findings.append(status)
        else:
            statuses.append(status)
            findings += findings_of(status, time.time())
    findings = [*_of_machine(data_dir, statuses), *findings, *_of_several(statuses)]
    if as_json:
        for finding in findings:
            click.echo(json_line(finding._asdict()))
    else:
        for finding in findings:
            click.echo(f"{finding.level:{_WIDTH}} {one_line(f'{finding.about}: {finding.text}')}")
        if not relays and not any(finding.about == "node" for finding in findings):
            click.echo("no node was asked: start one on this machine, or give --relay MULTIADDR", err=True)
    problems = sum(finding.level == "problem" for finding in findings)
    if problems:
        raise Failure(f"{problems} {'problem' if problems == 1 else 'problems'}; docs/troubleshooting.md tells more")


def findings_of(status: NodeStatus, now: float) -> Iterator[Finding]:
    """What a node's status tells. `now`: seconds since 1970."""
    who = f"node {status.peer_id}"
    if not status.ready:
        yield Finding(
            "problem",
            who,
            "it is linked to nobody: check what it joins through, and its network's token; its log says why",
        )
    elif not status.members:
        yield Finding("warning", who, "it is a network of one: start others that join through it")
    else:
        yield Finding("ok", who, f"linked with {counted(len(status.members), 'member')}")
    if not status.caught_up:
        yield Finding(
            "warning", who, "it catches up: its answers don't count for some seconds, or while its clock is off"
        )
    if status.clock is not None and status.clock.is_off:
        yield Finding("problem", who, f"its clock is off ({status.clock}): set it, by NTP; it signs nothing new")
    elif status.clock is not None and status.clock.is_suspect:
        yield Finding("warning", who, f"its clock differs ({status.clock}), from too few peers to tell whose is right")
    if status.disk is not None:
        yield from _of_disk(who, status.disk.used, status.disk.budget, is_full=status.disk.is_full)
        if status.disk.damaged:
            yield Finding("problem", who, f"{status.disk.damaged} damaged rows were dropped: check its disk")
    for cause, count in status.lacking.items():
        yield Finding("warning", who, f"others may have more of {count} resources ({cause}): that passes, or see there")
    if status.network is not None:
        yield from _of_certificate(who, status.network.ends_at, now)
    yield from _of_versions(who, status)
    yield from _of_addresses(who, status)


def _of_addresses(who: str, status: NodeStatus) -> Iterator[Finding]:
    """Whether others reach it, as far as they have tried: a member that it dialled dials it, too, before it lets it
    count as one."""
    if not any(_is_reachable(address) for address in status.addresses):
        yield Finding(
            "warning",
            who,
            "it tells others no address but of this machine: give --listen and --announce if others are to reach it",
        )
        return
    dialled_by = status.overlay.dialled_by if status.overlay is not None else None
    if dialled_by is None or not status.members:
        return
    members = counted(len(status.members), "member")
    if dialled_by:
        yield Finding("ok", who, f"{dialled_by} of its {members} dialled it since it started")
    elif status.uptime >= TRIED_WITHIN:
        yield Finding(
            "warning",
            who,
            f"none of its {members} has dialled it since it started, and who can't be dialled counts as no member: let"
            f" others through to {' and '.join(status.addresses[:3])}, or give --announce an address that leads there",
        )


def _of_versions(who: str, status: NodeStatus) -> Iterator[Finding]:
    own = status.versions.get(status.peer_id)
    if own is None:
        return
    others = Counter(version for peer_id, version in status.versions.items() if peer_id != status.peer_id)
    del others[own]
    if others:
        skewed = ", ".join(
            f"{count} {version.product or 'an older one'} (protocol {version.protocol})"
            for version, count in others.most_common(3)
        )
        yield Finding(
            "warning",
            who,
            f"it runs {own.product} (protocol {own.protocol}), and of its members {skewed}: finish the upgrade"
            " (docs/running.md)",
        )


def _of_disk(who: str, used: int, budget: int, *, is_full: bool) -> Iterator[Finding]:
    share = used / max(budget, 1)
    if is_full:
        yield Finding("problem", who, "its budget of disk is full: raise registry.max_disk_bytes, and restart it")
    elif share > NEARLY_FULL:
        yield Finding("warning", who, f"{share:.0%} of its budget of disk is used: raise registry.max_disk_bytes")


def _of_certificate(who: str, ends_at: int | None, now: float) -> Iterator[Finding]:
    if ends_at is None:
        yield Finding("problem", who, "it has no certificate for its private network: give it a token (node --join)")
    elif ends_at <= now:
        yield Finding("problem", who, f"its certificate ended {moment(ends_at)}: give it a new token")
    elif ends_at - now < SOON:
        yield Finding("warning", who, f"its certificate ends {moment(ends_at)}: give it a new token before")


def _is_reachable(address: str) -> bool:
    """Whether others than those on its machine could use it."""
    return not address.startswith(("/ip4/127.", "/ip6/::1/"))


def _of_several(statuses: Sequence[NodeStatus]) -> Iterator[Finding]:
    """Whether nodes that were asked are in one network."""
    networks: list[set[str]] = []
    for status in statuses:
        known = {status.peer_id, *status.members}
        apart = [other for other in networks if not other & known]
        networks = [*apart, known.union(*(other for other in networks if other & known))]
    if len(networks) > 1:
        sizes = " and ".join(str(len(known)) for known in networks)
        yield Finding(
            "problem",
            "network",
            f"the nodes are in {len(networks)} networks, of which they know {sizes} members: have one join through the"
            " other's address",
        )


def _of_machine(data_dir: Path | None, statuses: Sequence[NodeStatus]) -> Iterator[Finding]:
    """What is to be said of the machine, and of the folder of a node, which may be one of those with a status."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < ENOUGH_FILES:
        yield Finding(
            "warning",
            "machine",
            f"a process may open {soft} files: raise it to {ENOUGH_FILES} (ulimit -n, LimitNOFILE)",
        )
    else:
        yield Finding("ok", "machine", f"a process may open {soft} files")
    if data_dir is None:
        return
    space = os.statvfs(data_dir)
    free, more = space.f_bavail * space.f_frsize, _may_use_more(data_dir, statuses)
    if free < more:
        yield Finding(
            "warning",
            str(data_dir),
            f"{free // 2**20} MiB are free there, and a node may use {more // 2**20} MiB more: free space, or lower"
            " registry.max_disk_bytes",
        )
    if data_dir.stat().st_mode & 0o077:
        yield Finding("problem", str(data_dir), "others can read it, and the node's secret key is there: chmod 700")


def _may_use_more(data_dir: Path, statuses: Sequence[NodeStatus]) -> int:
    """Bytes that the database of the node with this folder may still grow by: as it says, or by the default."""
    from aqua_compat.api.full_node import IDENTITY_FILE
    from overlay.errors import IdentityError
    from overlay.identity import peer_id_in
    from registry.settings import RegistrySettings

    with suppress(IdentityError):  # it has no key yet
        peer_id = peer_id_in(data_dir / IDENTITY_FILE)
        for status in statuses:
            if status.peer_id == peer_id and status.disk is not None:
                return status.disk.budget - status.disk.used
    return RegistrySettings().max_disk_bytes


def _of_names(given: Sequence[str]) -> list[Finding]:
    import trio

    from overlay.discovery.bootstrap_source import SourceKind, parse_source
    from overlay.discovery.dnsaddr import look_up_dnsaddr
    from overlay.discovery.host_names import numbers_of
    from overlay.errors import AddressError, OverlayError

    async def look_up(text: str) -> Finding:
        source = parse_source(text)
        if source.kind is SourceKind.FILE:
            there = await trio.Path(source.where).is_file()
            return Finding("ok" if there else "problem", text, "it is there" if there else "there is no such file")
        try:
            dnsaddr = source.kind is SourceKind.DNSADDR
            found = await (look_up_dnsaddr(source.where) if dnsaddr else numbers_of(source.where))
        except OverlayError as error:
            return Finding("problem", text, str(error))
        if not found:
            return Finding("problem", text, "the name isn't known here: check DNS, /etc/hosts and search domains")
        return Finding("ok", text, f"leads to {', '.join(found)}")

    async def within_time(text: str) -> Finding:
        found: list[Finding] = []
        with trio.move_on_after(_PATIENCE):
            found.append(await look_up(text))
        silent = Finding("problem", text, f"no answer within {_PATIENCE:g} s: check the resolver's name servers")
        return found[0] if found else silent

    async def all_of_them() -> list[Finding]:
        return [await within_time(text) for text in given]

    try:
        return trio.run(all_of_them)
    except AddressError as error:
        raise Misuse(str(error)) from None


def _status_of(session: CommandSession, relay: str) -> NodeStatus | Finding:
    try:
        return session.through(relay).run(lambda client: client.registry.status(timeout=session.timeout))
    except Failure as failure:
        return Finding("problem", relay, str(root_of(failure)))
