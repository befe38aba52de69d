"""What an operator can set on a peer, with units, defaults and the cost of raising each one."""

from __future__ import annotations

from typing import Literal

import msgspec


class CallLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on what one peer can make this one hold, and deadlines of a link.

    What one link holds, counted in bytes as they travel, is at most `max_frame + max_served_bytes + max_queued_bytes +
    max_write_buffer`, and all links of a peer share `OverlaySettings.max_unread_per_peer`. While requests are served,
    hostile CBOR takes up to 70 times as much as it has bytes: that has bounds of its own.
    """

    max_frame: int = 1024 * 1024
    """Bytes of one frame, either way. The other side refuses larger ones, so it has to be the same on all peers."""

    max_in_flight: int = 64
    """Requests of one peer that are served at the same time. More favours few busy peers over many."""

    max_queued: int = 256
    """Requests of one peer that wait for being served; beyond it they are answered with `Overloaded`."""

    max_served_bytes: int = 4 * 1024 * 1024
    """Bytes of requests of one peer that are served at the same time (one always is)."""

    max_decoded: int = 120_000
    """Items of CBOR, of at most 70 bytes each in memory, of the requests of all peers that are served at the same time.
    When it is short, the peer that has most of them loses a request. More let peers with large requests wait less, and
    the loop wait longer while Python looks for garbage among them: 40 ms for 480,000."""

    max_decoded_per_peer: int = 60_000
    """The same of one peer, whose requests wait for room: one that may have 40,000 begins while those that are served
    have at most the rest. At 40,000 a large one would wait until no other is served at all."""

    max_queued_bytes: int = 4 * 1024 * 1024
    """Bytes of requests of one peer that wait for being served; beyond it they are answered with `Overloaded`."""

    max_pending: int = 1024
    """Own requests to one peer that wait for an answer; beyond it a call raises `Overloaded` at once."""

    max_write_buffer: int = 4 * 1024 * 1024
    """Bytes that wait for being written to one peer; beyond it calls and answers wait, until `write_timeout`."""

    hello_timeout: float = 5.0
    """Seconds for the first frame of a new link."""

    frame_timeout: float = 30.0
    """Seconds in which a frame that has begun has to be complete. Lower frees memory of slow peers, hostile or not."""

    write_timeout: float = 5.0
    """Seconds that a write may stall before the link is given up; on other streams, before the write fails."""

    ping_interval: float = 8.0
    """Seconds of silence after which a link is asked for a sign of life, by the side that opened it; the other side
    waits a quarter longer, so that one asks and both know. Lower notices frozen peers earlier and costs idle nodes."""

    pings_per_second: float = 2.0
    """Signs of life asked for per second, on all links together: with more links than that allows, each is asked more
    rarely, and the peers are told so."""

    max_ping_interval: float = 60.0
    """Seconds of silence after which a link is asked however many there are, and whatever the peer told."""

    ping_timeout: float = 5.0
    """Seconds for that sign of life. Lower notices frozen peers earlier and loses slow ones more often."""


class LinkLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How many links are kept open, and when those that nobody needs are closed. An open one costs about 0.12 MB."""

    idle_timeout: float = 600.0
    """Seconds without a call after which a link that neither side keeps is closed. Opening it again takes eight round
    trips and 10 ms of CPU."""

    min_lifetime: float = 3.0
    """Seconds for which a link lasts at least, however crowded it is."""

    gives_way_after: float = 60.0
    """Seconds without a call after which a link that this peer doesn't keep gives way to a newcomer, when all places of
    its kind are taken; one whose peer did nothing yet does so after a second. Lower favours newcomers."""

    low_water: int = 112
    """Links to members down to which those that neither side keeps are closed when there are too many."""

    high_water: int = 160
    """Links to members beyond which that is done."""

    max_members: int = 192
    """Links to members at which other members are turned away, unless this peer keeps them by its own choice."""

    max_unproven: int = 48
    """Links to peers that say they are members and have yet to prove it, beyond which they get no place that is due to
    them by their position alone."""

    max_light_clients: int = 1200
    """Light clients that are linked at the same time; others are turned away."""

    told_when_full: int = 8
    """Members that a peer that is turned away is told to try."""

    max_unlinked: int = 512
    """Connections without a link, such as those of Aqua's clients. When there are more, those are closed whose peers do
    nothing, or did something longest ago."""

    max_per_address: int = 256
    """Connections from one IPv4 address, or from the /64 of an IPv6 one. More are refused before they shake hands."""

    unlimited_networks: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    """Networks whose addresses have any number of connections, and of vain dials, as "10.0.0.0/8": where many peers
    share an address."""


class DialLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on dialling what others told, and nobody reached yet. Addresses that were configured have none."""

    private: Literal["auto", "always", "never"] = "auto"
    """Whether told addresses of loopback and private ranges are dialled: `auto` does so where this peer has an address
    in the same range, or was configured to dial one; in loopback only where it has no global one."""

    teller_burst: float = 32.0
    """Vain dials at once to what one peer told. More finds more of a network whose members are mostly gone."""

    teller_rate: float = 0.2
    """The same per second, on average."""

    host_burst: float = 16.0
    """Vain dials at once to one IPv4 address, or the /64 of an IPv6 one, on any port and whoever told it; nodes that
    share an address belong into `LinkLimits.unlimited_networks`."""

    host_rate: float = 0.2
    """The same per second, on average."""

    group_burst: float = 64.0
    """Vain dials at once to the /16 of an IPv4 address, or the /32 of an IPv6 one."""

    group_rate: float = 1.0
    """The same per second, on average."""


class TopicLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on announcements: how many topics, and what one peer may send."""

    max_topics: int = 64
    """Topics that this peer is in at the same time. Each costs about 0.05 % of a core idle; beyond it announcements
    travel by calls."""

    linger: float = 20.0
    """Seconds for which a topic that isn't used any more is kept, so that joining it again takes no time."""

    join_timeout: float = 2.0
    """Seconds for joining a topic."""

    rate: float = 250.0
    """Messages per second that are read of one peer, on average, whatever they are; then the connection waits."""

    burst: float = 500.0
    """Messages of one peer that are read at once."""

    invalid_rate: float = 0.1
    """Invalid messages per second that are forgiven a peer, on average."""

    invalid_burst: float = 10.0
    """Invalid messages at once; one more, and the peer is banned."""

    ban_time: float = 60.0
    """Seconds for which a banned peer isn't connected to."""


class RelayLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on calls that this peer relays for others, and on those that come to it through relays."""

    max_by_caller: int = 64
    """Calls of one peer that are being passed on."""

    max_to_target: int = 96
    """Calls that are being passed on to one peer; its link serves 64 of them, the others wait."""

    max_between: int = 32
    """Calls of one peer that are being passed on to one other: so no caller takes all that its target gets."""

    max_bytes: int = 512 * 1024
    """Of one request."""

    opened_by_caller: float = 50.0
    """Sessions per second that one peer may have opened through this one, on average. The called peers check two
    signatures for each."""

    opened_by_caller_burst: float = 1024.0
    """Sessions that one peer may have opened through this one at once: calls on so many peers that it didn't know."""

    opened_via_relay: float = 200.0
    """Sessions per second with this peer that others may open through one relay, on average; each costs about 0.4 ms.
    Beyond it they try another."""

    opened_via_relay_burst: float = 2048.0
    """Sessions with this peer that others may open through one relay at once."""

    max_sessions: int = 4096
    """Peers that are called through relays, and as many that call, whose keys are remembered, about 1 kB each."""


class PeerRecordSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How others find this peer after its relays changed, and how it keeps what they need to find others."""

    interval: float = 300.0
    """Seconds between two publications of this peer's own record, when nothing changed."""

    retry_delay: float = 2.0
    """Seconds until the next try when no member took it; doubles each time."""

    retry_delay_limit: float = 60.0
    """Longest wait between two tries in seconds."""

    lifetime: float = 900.0
    """Seconds for which a record is believed. Raising it forgives missed publications and misleads callers longer."""

    clock_skew: float = 30.0
    """Seconds by which the clocks of peers may differ."""

    max_kept: int = 16384
    """Records of other peers that are kept, about 1 kB each; beyond it new ones are refused."""

    rate: float = 0.2
    """Records per second that one peer may have sent on, on average."""

    burst: float = 20.0
    """Records that one peer may have sent on at once."""


class NetworkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the network is private: who may link, by certificates. See docs/private-networks.md.

    A token in the data folder, as `node --join` puts it there, makes the network private too.
    """

    roots: tuple[str, ...] = ()
    """Peer ids, or public keys of 64 hexadecimal digits, of those whose certificates let in. None: those of the token;
    without one anybody is let in."""

    token: str = ""
    """File with the token of this peer, which holds its certificate; by default the one in the data folder. A changed
    one is noticed while the peer runs."""

    clients: Literal["certificate", "free"] = "certificate"
    """Whether light clients, Aqua's too, need a certificate or are free to link. Aqua's can't show any: they are served
    only where clients are free."""


class OverlaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """How one peer listens, joins, looks up and calls."""

    listen: tuple[str, ...] = ("/ip4/127.0.0.1/tcp/0",)
    """Multiaddrs to listen on, `/ip4/../tcp/N` or `/ip4/../tcp/N/ws`; empty: dials only."""

    announce: tuple[str, ...] = ()
    """Multiaddrs that others are told instead of the ones listened on (behind NAT or a proxy)."""

    bootstrap: tuple[str, ...] = ()
    """Peers through which to join, as `overlay.discovery.bootstrap_source` tells; one that isn't up yet is tried again
    for ever."""

    trust_first: bool = False
    """Whether bootstrap addresses may name no peer: whoever answers first there is trusted from then on, and may be
    anyone who is on the way. Not needed in a private network, where certificates decide."""

    member: bool = True
    """False: a light client, which dials, never listens, and is in nobody's neighbourhood."""

    neighbourhood_size: int = 20
    """Members that are responsible for a resource (k). The same on all peers."""

    calls: CallLimits = CallLimits()
    """Bounds and deadlines of the links to other peers."""

    links: LinkLimits = LinkLimits()
    """How many links are kept open."""

    dials: DialLimits = DialLimits()
    """Bounds on dialling what others told."""

    topics: TopicLimits = TopicLimits()
    """Bounds on announcements."""

    relaying: RelayLimits = RelayLimits()
    """Bounds on relayed calls."""

    peer_records: PeerRecordSettings = PeerRecordSettings()
    """How it is found after its relays changed."""

    network: NetworkSettings = NetworkSettings()
    """Who may link: anybody, or holders of certificates."""

    dial_timeout: float = 5.0
    """Seconds for connecting and securing a connection."""

    lookup_timeout: float = 3.0
    """Seconds for a whole lookup, half of them for the recursive one; what is known by then is its result."""

    failed_peer_age: float = 60.0
    """Seconds for which a peer that couldn't be reached several times is left out of neighbourhoods, unless it comes by
    itself; after the first time it is left out for 5 seconds, since one failed dial says little."""

    retry_delay: float = 0.25
    """Seconds before the first retry of a bootstrap address; doubles, with jitter, up to `retry_delay_limit`."""

    retry_delay_limit: float = 15.0
    """Longest wait between retries in seconds. Raising it spares dead addresses and delays rejoining."""

    max_known_peers: int = 4096
    """Peers whose addresses are remembered; the longest unused unconnected ones are forgotten beyond it."""

    max_addresses_per_peer: int = 16
    """Addresses remembered per peer, so that none can fill memory with them."""

    connection_check_interval: float = 60.0
    """Seconds between two checks of a connection without a link, whose silence nothing else notices; a peer that fails
    one is disconnected. Each costs a stream (see `CallLimits.ping_interval` for the others)."""

    connection_check_timeout: float = 5.0
    """Seconds for the answer to such a check."""

    max_unread: int = 32 * 1024 * 1024
    """Bytes that came from all peers and nobody has read yet, that links hold of frames and requests, and that wait for
    being written; a stream counts as 8 KiB. When it is short, the peer with most of them loses its connection. Less
    than 16 kB of a connection, and eight streams that the peer opened, don't count."""

    max_unread_per_peer: int = 16 * 1024 * 1024
    """The same of one peer, over all its connections. What nobody has read yet is at most 4 MiB of each connection, and
    256 KiB of each stream."""

    direct_pipes: bool = True
    """Whether the state of TLS and noise is driven directly on the socket, as far as libp2p's version lets us. False
    reads and writes by libp2p's public interface, at half as much CPU again for each small message."""

    shutdown_timeout: float = 2.0
    """Seconds for saying goodbye to connected peers before sockets are just closed."""

    protocol_id: str = "/aqua-registry/calls/3"
    """Protocol of the links; its last part is their major version. Peers tell minor ones when they greet each other."""

    kad_protocol_id: str = "/aqua-registry/kad/1.0.0"
    """Protocol of the Kad-DHT, our own, so that this network and the public one stay apart."""
