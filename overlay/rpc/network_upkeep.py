"""Keeps a private network's rules in force on open links: ends, revocations and renewals of certificates take effect
within a second or two, without looking again and again.

- It wakes when the first chain of those let in ends, when the list of revocations or our own token changes, and puts
  out who may not stay.
- Two peers that link tell each other the entries that the other lacks, and tell news on to all others.
- A peer whose certificates were renewed shows the new ones over its open links.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from string import hexdigits
from typing import Annotated, Final, NamedTuple

import msgspec
import structlog
import trio
from msgspec import Meta

from overlay.errors import CallFailed, OverlayError, Refusal
from overlay.identity import Identity, peer_id_of, public_key_of
from overlay.limits.time_slices import turn
from overlay.limits.token_bucket import TokenBuckets
from overlay.membership.certificate import KEY_BYTES, MAX_CHAIN_BYTES
from overlay.membership.chain import ends_at
from overlay.membership.gatekeeper import LINK_FAULTS, MOST_ROOTS, Chain, Gatekeeper, ShownChain, encoded
from overlay.membership.revocation import MOST_ENTRIES, Revocation, Revocations, encode_entry, genuine
from overlay.rpc.greetings import Greetings
from overlay.rpc.links import Links
from overlay.rpc.network_files import NetworkFiles
from overlay.settings import NetworkSettings
from overlay.tasks import TaskOwner, TaskStatus, Wakeup, in_thread

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

REVOCATIONS_METHOD: Final = "overlay/revocations"
CERTIFICATE_METHOD: Final = "overlay/certificate"

_TIMEOUT: Final = 4.0  # seconds
_AT_ONCE: Final = 64  # calls
_AGAIN: Final = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds until a call that failed is made again
_SAVED_AGAIN: Final = 30.0  # seconds until what couldn't be saved is tried again
_MOST_TOLD: Final = MOST_ROOTS * MOST_ENTRIES
_VERIFIED_AT_ONCE: Final = 16
_PER_SIGNATURE: Final = 0.0002  # seconds for one entry
_RATE: Final = 2.0  # calls a second of one peer, each of which may cost signatures
_BURST: Final = 32.0
_LONGEST_SLEEP: Final = 60.0  # seconds, should the clock be set meanwhile
_WARNED_BEFORE: Final = 3 * 86_400  # seconds before our own certificate ends, or a quarter of its time if that is less


class _Told(msgspec.Struct, frozen=True, array_like=True):
    """The digest of the caller's list, and entries that the other may lack."""

    digest: Annotated[bytes, Meta(min_length=32, max_length=32)]
    entries: Annotated[list[bytes], Meta(max_length=_MOST_TOLD)]


class NetworkStatus(msgspec.Struct, frozen=True):
    """How a peer of a private network is in it."""

    roots: tuple[str, ...]
    """Peer ids of the keys whose certificates let in."""
    ends_at: int | None
    """When its own certificate ends, in seconds since 1970; None without one: others don't let it in."""
    revoked: int
    """Entries of the list of revocations."""
    refused: int
    """Times that it didn't let a peer in, or put one out, since the start."""


class PrivateNetwork(NamedTuple):
    """What makes the network of one peer private."""

    greetings: Greetings
    files: NetworkFiles


def private_network(
    identity: Identity, settings: NetworkSettings, data_dir: Path | None, clock: Callable[[], float]
) -> PrivateNetwork | None:
    """The private network that settings or a token name; None where there is none. Raises `NetworkFileError`,
    `TokenError`, and `PeerIdError` for a root that is none."""
    files = NetworkFiles(data_dir, settings.token)
    token = files.token(identity)
    roots = tuple(map(_root, settings.roots)) or (token.roots if token is not None else ())
    if not roots:
        return None
    gatekeeper = Gatekeeper(
        roots,
        token.chain if token is not None else (),
        clients=settings.clients,
        revocations=files.revocations(roots),
    )
    return PrivateNetwork(Greetings(gatekeeper, clock=clock), files)


def _plain(told: _Told) -> object:
    return msgspec.to_builtins(told, builtin_types=(bytes,))


def _root(text: str) -> bytes:
    if len(text) == 2 * KEY_BYTES and set(text) <= set(hexdigits):
        return bytes.fromhex(text)
    return public_key_of(text)


class NetworkUpkeep:
    """The tasks of one peer in a private network."""

    def __init__(self, links: Links, greetings: Greetings, identity: Identity, files: NetworkFiles) -> None:
        self._links = links
        self._greetings = greetings
        self._gatekeeper = greetings.gatekeeper
        self._identity = identity
        self._files = files
        self._tasks = TaskOwner()
        self._places = trio.CapacityLimiter(_AT_ONCE)
        self._rates = TokenBuckets(_RATE, _BURST)
        self._untold: dict[str, set[Revocation]] = {}  # by the peers that are being told
        self._unsaved = Wakeup()
        self._renewed = Wakeup()
        links.serve(REVOCATIONS_METHOD, self._answer_revocations)
        links.serve(CERTIFICATE_METHOD, self._answer_certificate)
        links.on_up(self._note_up)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the rules in force until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._tasks.run)
            nursery.start_soon(self._put_out_in_time)
            nursery.start_soon(self._save)
            nursery.start_soon(self._files.watch_token, self._note_token)
            nursery.start_soon(self._warn_in_time)
            task_status.started()

    def status(self) -> NetworkStatus:
        """How it is now."""
        keeper = self._gatekeeper
        return NetworkStatus(
            roots=tuple(sorted(map(peer_id_of, keeper.roots))),
            ends_at=ends_at(keeper.own_chain) if keeper.own_chain else None,
            revoked=len(keeper.revocations),
            refused=self._greetings.refused,
        )

    async def share(self, peer_id: str, *, timeout: float) -> None:
        """Tell a linked peer all that we know to be revoked. Raises `CallFailed`."""
        own = self._gatekeeper.revocations
        told = _Told(own.digest(), [encode_entry(entry) for entry in own])
        await self._links.call(peer_id, REVOCATIONS_METHOD, _plain(told), timeout=timeout)

    # Who may stay

    async def _put_out_in_time(self) -> None:
        while True:
            for peer_id, fault in self._gatekeeper.put_out(self._greetings.now()):
                self._tasks.start_soon(self._links.put_out, peer_id, fault)
            left = max(self._gatekeeper.next_end() - self._greetings.time(), 0.0)
            with trio.move_on_after(min(left, _LONGEST_SLEEP)):
                await self._greetings.changed.wait()

    # What roots took back

    def _note_up(self, peer_id: str, member: bool) -> None:  # noqa: ARG002 - a callback's signature
        self._tell_soon(peer_id, ())

    def _tell_soon(self, peer_id: str, news: tuple[Revocation, ...]) -> None:
        """Have a peer's list and ours become equal, with `news` told at first."""
        is_under_way = peer_id in self._untold
        self._untold.setdefault(peer_id, set()).update(news)
        if not is_under_way:
            self._tasks.start_soon(self._exchange_again, peer_id)

    async def _exchange_again(self, peer_id: str) -> None:
        try:
            await self._until_done(peer_id, self._exchange)
        finally:
            del self._untold[peer_id]

    async def _until_done(self, peer_id: str, do: Callable[[str], Awaitable[None]]) -> None:
        """Call a linked peer, and do so again if it fails."""
        for wait in _AGAIN:
            if not self._links.is_linked(peer_id):
                return  # what has to be said is said with the next link
            try:
                async with self._places:
                    await do(peer_id)
            except CallFailed as error:
                log.debug("a peer can't be told of certificates", peer_id=peer_id, error=str(error))
                await trio.sleep(wait)
            else:
                return

    async def _exchange(self, peer_id: str) -> None:
        """Get from a peer what we lack, and tell it what it lacks. Raises `CallFailed`."""
        while True:
            news, self._untold[peer_id] = self._untold[peer_id], set()
            theirs = await self._tell(peer_id, news)
            if theirs is not None and (lacking := self._gatekeeper.revocations.beyond(theirs)):
                await self._tell(peer_id, lacking)
            if not self._untold[peer_id]:
                return

    async def _tell(self, peer_id: str, entries: Iterable[Revocation]) -> Revocations | None:
        """Tell a peer of entries, and take those that it has; its list, or None if it's equal. Raises `CallFailed`."""
        told = _Told(self._gatekeeper.revocations.digest(), [encode_entry(entry) for entry in entries])
        answer = await self._links.call(peer_id, REVOCATIONS_METHOD, _plain(told), timeout=_TIMEOUT)
        return await self._take(peer_id, answer[:_MOST_TOLD]) if isinstance(answer, list) else None

    async def _answer_revocations(self, caller: str, body: object) -> object:
        await trio.lowlevel.checkpoint()
        if not self._rates.take(caller, trio.current_time()):
            raise Refusal("overloaded", "too many lists of revocations at once", 1.0)
        try:
            told = msgspec.convert(body, _Told, strict=True, builtin_types=(bytes,))
        except msgspec.ValidationError as error:
            raise Refusal("malformed", str(error)) from error
        await self._take(caller, told.entries)
        own = self._gatekeeper.revocations
        return None if own.digest() == told.digest else [encode_entry(entry) for entry in own]

    async def _take(self, teller: str, entries: list[bytes] | list[object]) -> Revocations:
        """Add what a peer told to the list; what is genuine of it. Forged ones cost a signature each: in turns."""
        found: list[Revocation] = []
        for start in range(0, len(entries), _VERIFIED_AT_ONCE):
            await turn(_VERIFIED_AT_ONCE * _PER_SIGNATURE)
            found += genuine(entries[start : start + _VERIFIED_AT_ONCE], self._gatekeeper.roots)
        theirs = Revocations(found)
        news = self._gatekeeper.take(theirs)
        if news:
            log.info("certificates were revoked", entries=len(news), teller=teller)
            self._greetings.changed.set()
            self._unsaved.set()
            for peer_id in self._links.linked_peers():
                if peer_id != teller:
                    self._tell_soon(peer_id, news)
        return theirs

    async def _save(self) -> None:
        while True:
            await self._unsaved.wait()
            try:
                await in_thread(self._files.save_revocations, self._gatekeeper.revocations)
            except OverlayError as error:
                log.warning("what was revoked can't be saved", error=str(error))
                with trio.move_on_after(_SAVED_AGAIN):  # or at once, with what comes then
                    await self._unsaved.wait()
                self._unsaved.set()

    # Our own certificates

    def _note_token(self) -> None:
        try:
            token = self._files.token(self._identity)
            if token is None or token.chain == self._gatekeeper.own_chain:
                return
            token.check(self._identity.peer_id, self._greetings.now())
        except OverlayError as error:
            log.warning("the token of this private network can't be used; the former stays in use", error=str(error))
            return
        self._gatekeeper.own_chain = token.chain
        self._renewed.set()
        log.info("this peer's certificate was renewed", ends_at=token.ends_at)
        for peer_id in self._links.linked_peers():
            self._tasks.start_soon(self._until_done, peer_id, self._show)

    async def _show(self, peer_id: str) -> None:
        await self._links.call(peer_id, CERTIFICATE_METHOD, encoded(self._gatekeeper.own_chain), timeout=_TIMEOUT)

    async def _answer_certificate(self, caller: str, body: object) -> object:
        await trio.lowlevel.checkpoint()
        if not self._rates.take(caller, trio.current_time()):
            raise Refusal("overloaded", "too many certificates at once", 1.0)
        if type(body) is not bytes or len(body) > MAX_CHAIN_BYTES:
            raise Refusal("malformed", "not a chain of certificates")
        before = self._gatekeeper.shown_by(caller)
        if before is None:
            return None  # it was put out meanwhile
        shown = ShownChain(body, before.member)
        fault = self._gatekeeper.fault_of(caller, shown, self._greetings.now())
        if fault is not None:
            raise Refusal(fault.value, LINK_FAULTS[fault])
        self._gatekeeper.let_in(caller, shown)
        self._greetings.changed.set()
        return None

    async def _warn_in_time(self) -> None:
        warned: Chain = ()
        while True:
            chain = self._gatekeeper.own_chain
            left = math.inf
            if chain and chain is not warned:
                end, begin = ends_at(chain), max(certificate.not_before for certificate in chain)
                left = end - min(_WARNED_BEFORE, (end - begin) / 4) - self._greetings.time()
                if left <= 0:
                    warned = chain
                    if end <= self._greetings.time():
                        log.warning("this peer's certificate has ended", ended_at=end)
                    else:
                        log.warning("this peer's certificate ends soon", ends_at=end)
                    continue
            with trio.move_on_after(left):
                await self._renewed.wait()
