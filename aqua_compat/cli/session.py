"""What the client commands share: the connection through a node, and output."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from copy import copy
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, TypeVar

import click

from aqua_compat.cli.failures import Failure, Misuse, one_line, root_of
from aqua_compat.cli.keys import DEFAULT_KEY, key_path, named_key, named_peer_id, user_data_folder
from aqua_compat.cli.loading import load_client
from aqua_compat.cli.logs import configure_logs
from aqua_compat.cli.signals import until_signalled

if TYPE_CHECKING:
    from aqua_compat.api.client import AquaClient
    from aqua_compat.cli.node_socket import NodeSocket
    from overlay.membership.join_token import JoinToken
    from registry.client.certificate_files import CertificateFiles
    from registry.model.names import Names

# Commands import what they need when they run: `--help` is to answer at once.
# ruff: noqa: PLC0415

_NAMES = "AQUA_REGISTRY_NAMES"
_LOCK_POLL = 0.05  # seconds

Outcome = TypeVar("Outcome")
Action = Callable[["AquaClient"], Awaitable[Outcome]]


class WriteOptions(TypedDict):
    """The options that every write takes: replicas that must have it on disk, and seconds for the whole operation."""

    factor: int
    timeout: float


class CommandSession:
    """How one command reaches the network: through which nodes, as whom, and within what time."""

    def __init__(
        self,
        relays: tuple[str, ...],
        key_name: str | None,
        timeout: float,
        factor: int | None,
        *,
        writes: bool,
        acts: bool,
        join: Path | None = None,
        certificates: tuple[Path, ...] = (),
        config: Path | None = None,
        node_folder: Path | None = None,
        logs: tuple[str, str] = ("error", "human"),
    ) -> None:
        """Without `key_name`: as the default key if the command `acts` in its name, else as nobody in particular.

        `join`: file with the token of a private network. `certificates`: files and folders of them that it shows where
        it registers. `config`: file with settings, of which the aliases of owners are used. `node_folder`: data folder
        of the node on this machine to act through, where no relay is given.
        """
        self._node_folder = node_folder
        self._logs = logs  # level and format
        self.join = join
        self.relays = relays
        self.key_name = key_name or DEFAULT_KEY
        self._is_key_named = key_name is not None
        self.is_nobody = key_name is None and not acts
        self.timeout = timeout
        self.factor = factor
        self.writes = writes
        self.certificates = certificates
        self._config = config

    @cached_property
    def names(self) -> Names:
        """The aliases of owners; `me` is the key that this command acts as, or would. Raises Misuse, Failure."""
        names = user_names(self._config, self.key_name)
        if self.token is None:
            return names
        from aqua_compat.api.invited_names import with_invited

        return names.with_aliases(with_invited(names.aliases, self.token))

    @cached_property
    def token(self) -> JoinToken | None:
        """By which this command joins a private network, if it does. Raises Failure."""
        if self.join is None:
            return None
        from overlay.errors import OverlayError
        from overlay.rpc.network_files import read_token

        try:
            return read_token(self.join)
        except OverlayError as error:
            raise Failure(str(error)) from None

    def resource_id(self, text: str) -> str:
        """The id of a resource that is given by its id or its name. Raises Misuse, with the remedy, for neither."""
        return resource_id_of(text, self.names, self.key_name)

    def name_for_node(self, text: str) -> str:
        """The id or name of a resource, to ask a node: an alias of this user's own settings as its owner's peer id. All
        others are the node's to know, and `me` is the node. Raises Misuse."""
        label, at, word = text.rpartition("@")
        return f"{label}@{self.owner_for_node(word)}" if at else text

    def owner(self, word: str) -> str:
        """The peer id of an owner that is given by an alias, its peer id or `me`. Raises Misuse, with the remedy."""
        from registry.errors import InvalidValue
        from registry.model.names import OWN

        names = self.names.of(named_peer_id(self.key_name)) if word == OWN else self.names
        try:
            return names.owner(word)
        except InvalidValue as error:
            raise Misuse(one_line(str(error))) from None

    def owner_for_node(self, word: str) -> str:
        """An owner, to ask a node; as `name_for_node`. Raises Misuse."""
        if self._config is None and _NAMES not in os.environ:
            return word
        from aqua_compat.cli.config import load_names

        return load_names(self._config, os.environ, None).aliases.get(word, word)

    def through(self, relay: str) -> CommandSession:
        """The same through one node alone."""
        one = copy(self)
        one.relays = (relay,)
        return one

    def log_errors_only(self) -> None:
        """Has this process log errors alone, whatever its options say."""
        self._logs = ("error", "human")

    def configure_logs(self) -> None:
        """Has this process log as its options say: before anything of the network is used, and not where nothing is."""
        configure_logs(*self._logs)

    def only_read(self) -> None:
        """Has this command act as nobody in particular, unless a key was named, since it writes nothing after all."""
        self.is_nobody, self.writes = not self._is_key_named, False

    def node(self) -> NodeSocket | None:
        """The node on this machine, if this command acts through it and in its name: not where a relay, a key, or what
        only a client of its own can show is given. Raises Failure if one was named that doesn't run."""
        if self.relays or self._is_key_named or self.join is not None or self.certificates:
            return None
        return self._found_node()

    def node_here(self) -> NodeSocket | None:
        """The node on this machine, in whosever name this command acts; None where relays are given. Raises Failure if
        one was named that doesn't run."""
        return None if self.relays else self._found_node()

    def addresses(self) -> tuple[str, ...]:
        """Of the nodes that a client of its own goes through: those given, or else of the one on this machine."""
        node = self.node_here()
        return self.relays if node is None else tuple(node.get("status").result["addresses"])

    def _found_node(self) -> NodeSocket | None:
        from aqua_compat.cli.node_socket import found_node

        return found_node(self._node_folder, lambda: user_data_folder() / "node", self.timeout)

    @property
    def write(self) -> WriteOptions:
        """How the writes of this command are done."""
        return {"factor": self.factor or 1, "timeout": self.timeout}

    def run(self, action: Action[Outcome]) -> Outcome:
        """Connect, act and disconnect. Raises Failure when no node can be reached, Misuse for a wrong argument, and
        KeyboardInterrupt when that came before the end."""
        self._find_relays()
        self.configure_logs()
        load_client()
        import trio

        outcomes: list[Outcome] = []
        try:
            signalled = trio.run(until_signalled, partial(self._run, action, outcomes), signal.SIGINT)
        except Exception as error:  # known ones become one line on stderr, others go on
            raise self._explained(root_of(error)) from error
        if signalled is not None:
            raise KeyboardInterrupt
        return outcomes[0]

    def run_beside(self, action: Action[Outcome]) -> Outcome:
        """As `run`, in a thread beside the main one, which has the signals."""
        self._find_relays()
        load_client()
        import trio

        outcomes: list[Outcome] = []
        try:
            trio.run(self._run, action, outcomes)
        except Exception as error:
            raise self._explained(root_of(error)) from error
        return outcomes[0]

    def _find_relays(self) -> None:
        self.relays = self.addresses()
        if not self.relays:
            raise Misuse(
                "no node to act through: start one on this machine (aqua-registry node), name its data folder (--node"
                " PATH), or give another's address (--relay MULTIADDR, or AQUA_REGISTRY_RELAY)"
            )

    async def _run(self, action: Action[Outcome], outcomes: list[Outcome]) -> None:
        from aqua_compat.api.connections import connect
        from aqua_compat.schema.constants import Constants
        from overlay.identity import Identity
        from overlay.settings import NetworkSettings, OverlaySettings

        settings = OverlaySettings(network=NetworkSettings(token=str(self.join or "")))
        constants = Constants(
            INITIAL_REPLICATION_FACTOR=self.factor or 1, DEFAULT_TIMEOUT=max(1, round(self.timeout * 1000))
        )
        # A peer id has one connection to a node: two commands that run at the same time under one would end each
        # other's.
        identity = Identity.generate() if self.is_nobody else named_key(self.key_name)
        async with AsyncExitStack() as stack:
            data_dir = await stack.enter_async_context(self._own_folder()) if self.writes else None
            client = await stack.enter_async_context(
                connect(
                    self.relays,
                    identity=identity,
                    constants=constants,
                    settings=settings,
                    data_dir=data_dir,
                    certificates=self._certificate_files(),
                    names=self.names.aliases,
                )
            )
            outcomes.append(await action(client))

    def _certificate_files(self) -> CertificateFiles | None:
        """Those given, each of which must be one, and those in the user's folder."""
        from registry.client.certificate_files import CertificateFiles, UnusableCertificate, read_chain

        if not self.writes:
            return None
        try:
            for path in self.certificates:
                if not path.is_dir():
                    read_chain(path)
        except UnusableCertificate as error:
            raise Failure(str(error)) from None
        return CertificateFiles([*self.certificates, *filter(Path.is_dir, [user_data_folder() / "certificates"])])

    @asynccontextmanager
    async def _own_folder(self) -> AsyncIterator[Path]:
        """Where the key's writes are remembered: one command at a time uses it, the next waits for it."""
        import trio
        from filelock import FileLock, Timeout

        folder = user_data_folder() / "clients" / self.key_name
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = FileLock(folder / "command.lock")  # the client itself locks the folder, and refuses instead of waiting
        with trio.move_on_after(self.timeout):
            while not lock.is_locked:
                try:
                    lock.acquire(blocking=False)
                except Timeout:
                    await trio.sleep(_LOCK_POLL)
        if not lock.is_locked:
            raise Failure(f"another command acts as the key {self.key_name!r} for too long; try again when it ended")
        try:
            yield folder
        finally:
            lock.release()

    def _explained(self, error: BaseException) -> BaseException:
        from overlay.errors import AddressError, IdentityError, NotAdmitted, OverlayError, PeerIdError
        from registry.errors import InvalidValue, RegistryError, RegistryRefusal, StorageError

        if isinstance(error, (AddressError, PeerIdError, InvalidValue, TypeError, ValueError)):
            return Misuse(str(error))
        if isinstance(error, (IdentityError, RegistryRefusal, StorageError)):
            return Failure(str(error))
        if isinstance(error, (OverlayError, RegistryError, OSError)):
            asks = "" if isinstance(error, NotAdmitted) else "; is that node running there?"
            return Failure(f"can't act through {' or '.join(self.relays)}: {error}{asks}")
        return error


def user_names(config: Path | None, key_name: str) -> Names:
    """The aliases in the file `config` and the environment; `me` is the user's key of that name, if it exists: reading
    makes none. Raises Misuse."""
    from registry.model.names import Names

    own = named_peer_id(key_name) if key_path(key_name).exists() else None
    if config is None and _NAMES not in os.environ:
        return Names({}, own)  # at once: reading settings takes 20 ms to import
    from aqua_compat.cli.config import load_names

    return load_names(config, os.environ, own)


def resource_id_of(text: str, names: Names, key_name: str) -> str:
    """The id of a resource that is given by its id or its name. Raises Misuse, with the remedy, for neither."""
    from registry.errors import InvalidValue
    from registry.model.names import OWN, label_and_owner

    parts = label_and_owner(text)
    if parts is not None and parts[1] == OWN:
        names = names.of(named_peer_id(key_name))
    try:
        return names.resource_id(text)
    except InvalidValue as error:
        raise Misuse(one_line(str(error))) from None


def warn(errors: Sequence[str]) -> None:
    """Errors of an operation that succeeded all the same, as lines on stderr."""
    for error in dict.fromkeys(errors):
        click.echo(f"warning: {one_line(error)}", err=True)
