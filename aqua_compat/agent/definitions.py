"""What an agent keeps registered: services, their instances, and how each is checked. Valid once they exist."""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from registry.model.endpoints import Instance

MAX_SERVICES: Final = 1_000
MAX_CHECKS: Final = 32
"""Of one instance."""


class OnStop(enum.Enum):
    """What becomes of a service's registration when its agent stops cleanly."""

    LEAVE = "leave"
    """It ends."""
    STAY = "stay"
    """It stays until it expires: for restarts that nobody should notice."""


class HttpCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Passes when a request is answered with a wanted status, and a body in which `body` is found."""

    url: str
    method: str = "GET"
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    status: tuple[int, ...] = ()
    """Statuses that pass; by default 200 to 299. 429 is a warning otherwise, as with Consul."""
    body: str = ""
    """A regular expression that is to be found within the first 64 KiB of the answer."""
    tls_verify: bool = True
    tls_server_name: str = ""
    """Name to ask for and to verify instead of the URL's host."""
    tls_ca: str = ""
    """File with the certificates of authorities that count instead of the system's."""


class TcpCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Passes when a connection comes about."""

    host: str
    port: int


class GrpcCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Passes when gRPC's health protocol says SERVING."""

    host: str
    port: int
    service: str = ""
    """Empty: the server as a whole."""
    tls: bool = False
    tls_verify: bool = True
    tls_server_name: str = ""
    tls_ca: str = ""


class ScriptCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Passes when a program ends with exit code 0; 1 is a warning. No shell reads the arguments."""

    arguments: tuple[str, ...]


class TtlCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The program says itself how it is, and is critical when it hasn't for `ttl` seconds."""

    ttl: float


class AliasCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Is as the worst check of another service of this agent."""

    service: str
    """Its id."""


Probe = HttpCheck | TcpCheck | GrpcCheck | ScriptCheck | TtlCheck | AliasCheck


class CheckTiming(msgspec.Struct, frozen=True, kw_only=True):
    """When a check is done, and how many results in a row change its state. Seconds."""

    interval: float = 10.0
    timeout: float = 5.0
    passes: int = 1
    """Good results in a row until a critical check isn't any more."""
    failures: int = 1
    """Critical ones in a row until it is."""


class CheckDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """A check, by a name that others of its instance don't have."""

    name: str
    probe: Probe
    timing: CheckTiming = CheckTiming()


class DefinedInstance(msgspec.Struct, frozen=True, kw_only=True):
    """An instance as its record is to tell of it, and its checks."""

    instance: Instance
    """Without an address it gets the node's own, if it has a port."""
    checks: tuple[CheckDefinition, ...] = ()


class ServiceDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """A service of this machine. Several of one resource are one record, with the instances of all."""

    id: str
    """Names it on this machine."""
    label: str
    owner: str
    """Peer id of the resource's owner."""
    key_id: str
    """The resource."""
    instances: tuple[DefinedInstance, ...]
    on_stop: OnStop = OnStop.LEAVE
    source: str = ""
    """What defines it: a file, with the line where it begins there if that is known."""
