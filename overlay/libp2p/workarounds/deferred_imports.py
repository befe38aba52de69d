"""Fault: `import libp2p` imports all that libp2p can do, and what that needs: QUIC, HTTP, mDNS, UPnP, stores, metrics.

That is a third of a node's memory and nearly half of its time until it listens, for what is switched off here, or what
only a rare peer asks for. So while libp2p is imported (`import_libp2p`) placeholders stand for the modules in
`DEFERRED`, and each is imported when something of it is first used: called, or an attribute read. Naming it in an
annotation isn't a use, nor is catching it. What would need the real thing at once raises ImportError: making a subclass
of a placeholder, iterating over it, asking for its truth or text.

Nobody else meets a placeholder: they stand for what libp2p itself imports, are in `sys.modules` only meanwhile, and not
even then for packages that were imported already. Where libp2p was imported before, nothing is deferred.

Remove when `import libp2p` imports what a host uses.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, Final

DEFERRED: Final = {
    "aioquic": "QUIC isn't offered; libp2p asks whether addresses are of it, for which its other modules are needed",
    "anyio": "libp2p's services can run by it, or by Trio, as they do here",
    "prometheus_client": "nobody scrapes libp2p's metrics",
    "trio_websocket": "a node may have no WebSocket",
    "libp2p.bitswap": "blocks aren't exchanged; the DHT needs a function of it for finding providers",
    "libp2p.crypto.ecc": "of SECIO",
    "libp2p.crypto.authenticated_encryption": "of SECIO",
    "libp2p.crypto.key_exchange": "of SECIO",
    "libp2p.crypto.rsa": "keys are Ed25519; a foreign peer may have one of these",
    "libp2p.crypto.secp256k1": "keys are Ed25519; a foreign peer may have one of these",
    "libp2p.discovery.bootstrap": "the overlay joins by itself",
    "libp2p.discovery.mdns": "off",
    "libp2p.discovery.upnp": "off",
    "libp2p.kad_dht.diagnostics": "nobody asks libp2p's table how it is",
    "libp2p.peer.persistent": "the peer store is in memory",
    "libp2p.rcmgr.memory_stats": "nobody looks at libp2p's limits on memory, and only they ask for it",
    "libp2p.rcmgr.prometheus_exporter": "nobody scrapes libp2p's metrics",
    "libp2p.records.ipns": "no names of IPFS are kept",
    "libp2p.relay": "the overlay relays by itself",
    "libp2p.security.pnet": "private networks are let in by certificates",
    "libp2p.security.secio": "TLS and Noise are what is offered",
    "libp2p.security.tls.autotls": "off",
    "libp2p.transport.quic.connection": "QUIC isn't offered",
    "libp2p.transport.quic.listener": "QUIC isn't offered",
    "libp2p.transport.quic.security": "QUIC isn't offered",
    "libp2p.transport.quic.stream": "QUIC isn't offered",
    "libp2p.transport.quic.transport": "QUIC isn't offered",
    "libp2p.transport.websocket.tls_config": "WebSockets are within TLS or Noise, not the other way round",
    "multiaddr.resolvers": "addresses with names are rare, and the resolver imports all of dnspython",
    "noise": "TLS is preferred; a foreign peer may speak Noise alone",
    "psutil": "only who listens on all interfaces asks which there are",
}
"""What is imported late, with its submodules, and why it isn't needed at once."""

MADE_LATE: Final = frozenset(
    {
        ("libp2p.rcmgr.memory_stats", "MemoryStatsCache"),  # each resource manager makes one, and never uses it
        ("libp2p.rcmgr.memory_stats", "get_global_memory_cache"),  # as its limits on memory
        ("multiaddr.resolvers", "DNSResolver"),  # as each swarm
    }
)
"""What these classes and functions, by module and name, make is made when something of it is first used."""

IMPORTED: Final = (
    "libp2p",
    "libp2p.kad_dht.kad_dht",
    "libp2p.network.connection.swarm_connection",
    "libp2p.pubsub.gossipsub",
    "libp2p.pubsub.pubsub",
)
"""What is imported with placeholders: by these come all others that this network uses."""


def import_libp2p() -> None:
    """Import libp2p without what is rarely needed. Does nothing when it's imported already."""
    if "libp2p" in sys.modules:
        return
    with _placeholders():
        for name in IMPORTED:
            import_module(name)


class _Placeholder(type):
    """The metaclass of what stands for a class, a function or a constant of a module that isn't imported yet."""

    _home: str  # the module
    _path: tuple[str, ...]  # names from there

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if _is_placeholder(cls._home):
            return _placeholder(cls._home, (*cls._path, name))
        return getattr(_real(cls), name)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if (cls._home, *cls._path) in MADE_LATE:
            return _LateInstance(cls, args, kwargs)
        return _real(cls)(*args, **kwargs)

    def __instancecheck__(cls, instance: object) -> bool:
        # Of a class whose module nobody has imported there is no instance.
        return _is_imported(cls._home) and isinstance(instance, _real(cls))

    def __subclasscheck__(cls, subclass: type) -> bool:
        return cls is subclass or (_is_imported(cls._home) and issubclass(subclass, _real(cls)))

    def __bool__(cls) -> bool:
        raise _refusal(cls)

    def __iter__(cls) -> Iterator[Any]:
        raise _refusal(cls)

    def __str__(cls) -> str:
        raise _refusal(cls)


class _Named(Exception, metaclass=_Placeholder):
    """The base of all placeholders: an exception, so that it can stand in `except`."""

    _home = __name__
    _path = ("_Named",)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if "_path" not in vars(cls):
            raise _refusal(cls)

    def __class_getitem__(cls, item: object) -> type[_Named]:
        return cls


class _LateInstance:
    """What a class or function makes, which is imported, and it made, when an attribute of it is asked for."""

    def __init__(self, cls: _Placeholder, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._of, self._args, self._kwargs = cls, args, kwargs
        self._made: Any = None

    def __getattr__(self, name: str) -> Any:
        if self._made is None:
            self._made = _real(self._of)(*self._args, **self._kwargs)
        return getattr(self._made, name)


def _placeholder(home: str, path: tuple[str, ...]) -> _Placeholder:
    return _Placeholder(path[-1], (_Named,), {"__module__": home, "_home": home, "_path": path})


def _is_placeholder(module: str) -> bool:
    return isinstance(sys.modules.get(module), _PlaceholderModule)


def _is_imported(module: str) -> bool:
    return module in sys.modules and not _is_placeholder(module)


def _real(cls: _Placeholder) -> Any:
    if _is_placeholder(cls._home):  # libp2p is being imported, and uses it
        raise _refusal(cls)
    found: Any = import_module(cls._home)
    for name in cls._path:
        found = getattr(found, name)
    return found


def _refusal(cls: _Placeholder) -> ImportError:
    return ImportError(
        f"{cls._home}.{'.'.join(cls._path)} isn't imported, and can't be used like this before it is; "
        f"a program that needs it imports libp2p before overlay (see {__name__})"
    )


class _PlaceholderModule(ModuleType):
    """Stands for a module that isn't imported yet."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if _is_placeholder(self.__name__):
            return _placeholder(self.__name__, (name,))
        return getattr(import_module(self.__name__), name)


class _Finder(MetaPathFinder, Loader):
    """Finds placeholders for the modules in `DEFERRED` and theirs, where the thread that made it imports them."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._left_alone = {name for name in DEFERRED if name in sys.modules or not _installed(name)}

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 - the protocol's
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if threading.get_ident() != self._thread:
            return None
        parts = fullname.split(".")
        owners = {".".join(parts[:length]) for length in range(1, len(parts) + 1)}
        if owners & self._left_alone or not owners & DEFERRED.keys():
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _PlaceholderModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is in it."""


def _installed(name: str) -> bool:
    return PathFinder.find_spec(name.partition(".")[0]) is not None


@contextmanager
def _placeholders() -> Iterator[None]:
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name, module in list(sys.modules.items()):
            if isinstance(module, _PlaceholderModule):
                del sys.modules[name]
                parent, _, last = name.rpartition(".")
                owner = sys.modules.get(parent)
                if owner is not None and vars(owner).get(last) is module:
                    delattr(owner, last)
