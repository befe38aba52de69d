"""Every setting of a node: those of the registry's layer, and those of this one."""

from __future__ import annotations

from typing import Final

import msgspec

from aqua_compat.agent.file_form import ServiceForm
from aqua_compat.agent.settings import AgentSettings
from aqua_compat.particles.settings import AquaSettings
from registry.settings import NodeSettings

LONGEST_TTL: Final = 3600  # seconds


class ConsulSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a node answers Consul's clients. See docs/consul.md."""

    owner: str = ""
    """Whose resources are the services of the default datacenter: an alias of `names`, a peer id, or `me`, the node's
    own key. Empty: the default owner of services here (`agent.owner`, or the invitation's), the node without one."""
    datacenter: str = "aqua"
    """Name of the default datacenter. The aliases of `names`, and `me`, are others."""
    checks_anywhere: bool = False
    """Whether checks that are registered with a token that may write, and no more, may ask at any address. Otherwise
    they ask at this machine alone, by its addresses, `localhost` or its name: who has one could look through the node
    at what only the node reaches. Where programs register that run in containers with addresses of their own, set it,
    or give them tokens that may operate."""


class HttpSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a node answers HTTP: on the socket in its data folder always, and on `listen`. See docs/http.md."""

    listen: str = ""
    """Address and port, such as `127.0.0.1:8500` or `[::1]:8500`; port 0 is any free one. Empty: the socket alone.

    Other machines reach it only with tokens (`aqua-registry http token`), and either TLS or `plain`.
    """
    plain: bool = False
    """Whether other machines may use it without TLS, as behind a proxy that ends TLS: whoever listens on the way sees
    the tokens."""
    tls_certificate: str = ""
    """File with the certificate chain of `listen`, in PEM. Empty: without TLS."""
    tls_key: str = ""
    """File with its private key, in PEM; empty where it is in the same file."""
    hosts: tuple[str, ...] = ()
    """Names by which clients reach `listen`, besides addresses and `localhost`. Requests for others are refused, or a
    web page could have a browser use this node (DNS rebinding)."""
    max_connections: int = 256
    """To `listen`, of which one address of another machine has half, and as many to the socket. Beyond, those that ask
    nothing give way."""
    max_watches: int = 192
    """Open watches of all clients together, of which one on another machine has half. Each takes a connection for long,
    so fewer of them leave room for others; the system's limit of open files has to be above both."""
    max_head: int = 16_384
    """Bytes of a request's line and headers."""
    max_body: int = 524_288
    """Bytes of a request's body: a record with the largest value fits."""
    head_timeout: float = 10.0
    """Seconds that a request's head may take to arrive, from its first byte on."""
    body_timeout: float = 20.0
    """Seconds that a request's body may take to arrive."""
    idle_timeout: float = 75.0
    """Seconds for which a connection is kept that asks nothing."""
    write_timeout: float = 10.0
    """Seconds that a client may take for 64 KiB of an answer."""
    stop_timeout: float = 2.0
    """Seconds that answers which are under way get when the node stops."""
    consul: ConsulSettings = ConsulSettings()
    """How Consul's clients are answered."""


class DnsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a node answers DNS, by UDP and TCP. See docs/dns.md."""

    listen: str = ""
    """Address and port, such as `127.0.0.1:8600` or `[::1]:8600`; port 0 is any free one. Empty: nowhere."""
    domain: str = "aqua."
    """What its names end with."""
    ttl: int = 0
    """Seconds for which answers may be remembered, 3600 at most. With 0 nobody is sent to what has just died."""
    negative_ttl: int = 1
    """Seconds for which it may be remembered that there is nothing."""
    timeout: float = 2.0
    """Seconds in which a name must be resolved that nobody asked for lately; resolvers wait for some 5."""
    max_answers: int = 256
    """Records of an answer; of more instances so many are drawn by their weights."""
    max_followed: int = 256
    """Names asked for lately whose resources are watched, so that answers are at hand."""
    max_resolving: int = 64
    """Names that are being resolved at the same time; others get a SERVFAIL meanwhile."""
    max_udp: int = 1232
    """Bytes of an answer by UDP to other machines, which then isn't cut on its way; this machine gets what it asks
    for, up to 8192."""
    queries: float = 10_000.0
    """Queries a second that are looked at, from everywhere."""
    queries_per_source: float = 200.0
    """Queries a second that are looked at, from one address of another machine, or one /64 of IPv6."""
    max_connections: int = 64
    """TCP connections, of which one address of another machine has a quarter at most."""
    idle_timeout: float = 10.0
    """Seconds that a TCP connection has for a query, and for taking its answer."""

    def __post_init__(self) -> None:
        if not (0 <= self.ttl <= LONGEST_TTL and 0 <= self.negative_ttl <= LONGEST_TTL):
            raise ValueError(f"dns.ttl and dns.negative_ttl are 0 to {LONGEST_TTL} seconds")
        if not 512 <= self.max_udp <= 4096:
            raise ValueError("dns.max_udp is 512 to 4096 bytes")


class Settings(NodeSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `aqua-registry node` is run with."""

    aqua: AquaSettings = AquaSettings()
    """How the node serves unmodified Aqua."""
    agent: AgentSettings = AgentSettings()
    """How the node is the agent of its machine."""
    service: tuple[ServiceForm, ...] = ()
    """Services of this machine, each as in a service file: `[[service]]`."""
    http: HttpSettings = HttpSettings()
    """How the node answers HTTP."""
    dns: DnsSettings = DnsSettings()
    """How the node answers DNS."""
    tracing: bool = False
    """Whether spans are made of calls, relays and writes, and exported by OTLP: needs the extra `tracing`. Each traced
    call costs some 0.1 ms of CPU for each of its spans."""


def aqua_settings_of(settings: NodeSettings) -> AquaSettings:
    """How a node with these settings serves unmodified Aqua: not at all with those of the registry's layer alone."""
    return settings.aqua if isinstance(settings, Settings) else AquaSettings()
