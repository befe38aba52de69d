"""Every setting of the registry and of a node, with unit, default and reason."""

from __future__ import annotations

import msgspec

from overlay.settings import OverlaySettings

DAY = 86_400


class HostingPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which records of others a peer signs as their host, and how much of it.

    Hosting costs a signature, a row on this peer's disk and its renewing for as long as the issuer's signature is
    good, so strangers get a quota.
    """

    allow: str = "anyone"
    """`anyone`, `listed` (only peers of `issuers`) or `nobody`."""
    issuers: tuple[str, ...] = ()
    """Peer ids that may always ask, whatever `allow` says; the quotas below don't bind them."""
    max_records: int = 10_000
    """Records hosted for strangers, all together."""
    max_bytes: int = 64 * 2**20
    """Bytes of those records in deterministic CBOR, all together."""
    max_records_per_issuer: int = 1_000
    """One stranger can't take the whole quota."""
    rate: float = 50.0
    """Requests per second and asking peer, on average; an honest issuer's bursts fit into `burst`."""
    burst: int = 200
    """Requests that one peer may make at once."""


class HealthLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of how many services a host keeps what their providers say, and how often those may say it.

    One takes half a kilobyte of memory, and as much in the list that readers get while it doesn't pass. What the host
    says itself, and the peers of `hosting.issuers`, are bound by no quota.
    """

    max_services: int = 8_192
    """Services of strangers that don't pass, or have a time to live, all together."""
    max_services_per_issuer: int = 1_024
    """Of those, services of one issuer."""
    min_ttl: float = 1.0
    """Seconds; each expiry of a shorter time to live, after a packet lost, would be told to everybody who watches."""
    max_ttl: float = 86_400.0
    """Seconds; a record lives as long."""
    rate: float = 50.0
    """Reports per second and issuer, on average, each a signature to verify (0.1 ms)."""
    burst: int = 500
    """Reports that one issuer may make at once."""


class RegistrySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rules of the network. All nodes of a network should have the same lifetimes."""

    expired_age: int = DAY
    """Seconds after a host's signature at which a record is expired (age >= expired_age), as in the original."""
    stale_age: int = 3_600
    """Seconds after its last publishing at which a key is due for replication, as in the original."""
    clock_skew: int = 30
    """Seconds that another peer's clock may be ahead of ours; 0 is the original's rule."""
    record_lifetime: int = 90 * DAY
    """Seconds for which an issuer's signature on a record is good; running issuers re-issue before that."""
    key_lifetime: int = 365 * DAY
    """Seconds for which an owner's signature on a key is good."""
    records_per_key: int = 256
    """Records of other hosts that a node stores under one key (original: 32)."""
    records_per_issuer: int = 32
    """Of those, records by one issuer."""
    slots_per_key: int = 4_096
    """Slots under one key, ended ones included, of which there is one per record that ever was; of strangers."""
    slots_per_issuer: int = 512
    """Of those, slots of one issuer: so many different hosts within the lifetime of a tombstone. The owner has all."""
    keys_per_owner: int = 10_000
    """Keys and key tombstones of one owner that a node stores; its own are exempt."""
    tombstones_per_key: int = 1_024
    """Tombstones under one key, beyond which those for unknown slots are refused; one that ends a record never is."""
    tombstone_rate: float = 100.0
    """Tombstones for unknown slots per second and sending peer, on average; as many again of issuers that a
    policy names or that are certified."""
    tombstone_burst: int = 10_000
    """Such tombstones at once: what a neighbour has for a peer that was away."""
    max_disk_bytes: int = 2**30
    """Bytes of the database, beyond which what makes it grow is refused, unless somebody who has more gives way."""
    disk_share: float = 1 / 4
    """Part of `max_disk_bytes` that one stranger may have, as owner and issuer; peers with a weight aren't bound."""
    assured_share: float = 1 / 256
    """Part of `max_disk_bytes` of which nothing gives way to other strangers; more of it leaves less to newcomers."""
    sender_share: float = 1 / 16
    """Part of `max_disk_bytes` by which one sender may make a database grow a day that is more than half full; as much
    again by states of issuers that a policy names or that are certified."""
    max_value: int = 65_536
    """Bytes of a record's value."""
    max_label: int = 4_096
    """Bytes of a key's label."""
    neighbourhood_size: int = 20
    """Replicas of a resource (the original's k)."""
    responsibility_margin: int = 8
    """A node stores what it is among the k + this many closest for: views of the network differ a little."""
    hosting: HostingPolicy = HostingPolicy()
    health: HealthLimits = HealthLimits()

    @property
    def tombstone_lifetime(self) -> int:
        """Seconds for which a tombstone is kept: nothing that it killed can be good for longer."""
        return self.record_lifetime + 2 * self.clock_skew

    @property
    def key_tombstone_lifetime(self) -> int:
        """Seconds for which a key tombstone is kept, by the same rule."""
        return max(self.key_lifetime, self.record_lifetime) + 2 * self.clock_skew


class CurrentSettings:
    """The registry's settings in force on a node: its operator may change the lifetimes while it runs."""

    def __init__(self, settings: RegistrySettings) -> None:
        self.value = settings


class WatchSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many watchers of one resource a node tells of changes, as a replica or because it watches it itself.

    More of them cost it a call or a message each per change; further ones are told by those, one step later.
    """

    max_watchers: int = 64
    """Other nodes."""
    max_client_watchers: int = 1_024
    """Light clients, whose only way into the network a node may be."""


class UpkeepSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a node keeps the network's state, its schedules as the original's."""

    clear_expired: float = 86_400.0
    """Seconds between collections of what expired."""
    replicate: float = 3_600.0
    """Seconds between comparisons of everything with everyone; churn is followed at once."""
    renew: float = 43_200.0
    """Seconds between renewals; no more than half of the expired age, lest records expire in between."""
    jitter: float = 0.1
    """Part of a period by which each run may come earlier, so that nodes don't act at once."""
    join_delay: float = 0.2
    """Seconds until a newcomer is compared with, so that those who come together are looked at together."""
    head_start: float = 2.0
    """Seconds by which the other replicas let the nearest bring a newcomer up to date; less costs repeated sending."""
    departure_grace: float = 3.0
    """Seconds in which a lost peer may come back before others take over; more of it spares traffic at restarts, less
    restores the number of replicas earlier."""


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One node: its place in the network, its rules, and whom it trusts more than a stranger."""

    overlay: OverlaySettings = OverlaySettings()
    registry: RegistrySettings = RegistrySettings()
    upkeep: UpkeepSettings = UpkeepSettings()
    watching: WatchSettings = WatchSettings()
    names: dict[str, str] = msgspec.field(default_factory=dict)
    """Alias to an owner's peer id: with `acme` here, `web@acme` is the resource `web` of that owner. This user's own
    words; others may have others."""
    operators: tuple[str, ...] = ()
    """Peer ids that may run this node's schedules by hand from elsewhere, and set roots of its trust graph; the node's
    own identity always may."""
    weights: dict[str, int] = msgspec.field(default_factory=dict)
    """Peer id to weight, whatever the trust graph says of it, also 0; strangers weigh 0. Of records beyond the limit of
    a key, the heavier stay."""
    trust_roots: dict[str, int] = msgspec.field(default_factory=dict)
    """Peer id to how many steps (16 at most) it lends weight by trusts: 2^steps is its own, and half as much with each
    step. Before what the trust graph's `set_root` says. A root's chains begin with its trust in itself."""
    certificates: str = ""
    """Folder of files `*.cert`, each a chain of certificates, or one such file: where a resource's policy asks for one,
    what this node registers shows it. They are read again when they change, so renew them before they end. Empty: none.
    """
    refill_damaged: bool = False
    """Whether a node whose database is damaged sets it aside and starts empty, for the network to fill; otherwise it
    doesn't start. What only this node had is lost either way."""
