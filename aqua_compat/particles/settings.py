"""Settings of serving Aqua: options, and bounds on what peers can take."""

from __future__ import annotations

from msgspec import Struct


class AquaSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes in bytes, times in seconds. What one peer sends can hold about `max_bytes_per_peer` of memory."""

    enabled: bool = False
    """Whether the node takes particles; `--aqua`."""
    folder: str = ""
    """Where the interpreter is installed; by default in the user's data folder."""
    interpreters: int = 2
    """Steps at the same time, each in a thread with an instance of its own. More than the cores only cost memory."""
    max_memory: int = 128 * 2**20
    """Memory of one instance; a step that needs more fails."""
    kept_memory: int = 48 * 2**20
    """An instance that has grown beyond it is replaced: its memory never shrinks."""
    step_timeout: float = 2.0
    """The longest a step may take. Usual ones take milliseconds; with more, hostile scripts take more of the CPU."""
    max_script: int = 512 * 1024
    """Size of a particle's script (AIR)."""
    max_particle: int = 4 * 2**20
    """Size of a particle on the wire, and of its data; the original's client takes no more than 4 MiB."""
    max_result: int = 2**20
    """Size of one call's result as JSON."""
    max_requests: int = 2 * 2**20
    """Size of all calls that one step makes, with their arguments."""
    max_lifetime: float = 600.0
    """Longest time until a particle expires; others are refused."""
    max_actors: int = 8192
    """Particles that are kept until they expire. Beyond it the peer that brought most loses one: an idle one, else its
    oldest."""
    max_actors_per_peer: int = 2048
    """Particles that are kept for one peer that brought them."""
    max_bytes: int = 256 * 2**20
    """Memory of all that is kept of particles. Beyond it the peer that has most makes room, as above."""
    max_bytes_per_peer: int = 64 * 2**20
    """Memory of what one peer brought."""
    max_waiting: int = 64
    """Copies of one particle that wait for their step, brought by one peer; four times as many of all."""
    max_calls: int = 256
    """Calls of one particle that are under way here; those beyond it fail."""
    max_calls_per_peer: int = 1024
    """Calls that are under way here of all particles that one peer brought; those beyond it fail."""
    max_calls_of_all: int = 16_384
    """Calls that are under way here. Beyond it the peer with most of them loses the particle that began its first."""
    max_lookups: int = 64
    """Tasks that ask other peers at the same time: kad.neighborhood, peer.connect, sig.sign, and sending to peers whose
    addresses aren't known. Others wait; a place that becomes free goes to the peer that has fewest."""
    max_lookups_per_peer: int = 16
    """Such tasks at the same time for particles that one peer brought."""
    max_next_peers: int = 64
    """Peers to which one step can send a particle on."""
    max_sending_per_peer: int = 256
    """Particles that one peer brought and that wait to be sent, or are being sent, to one other peer."""
    max_sending_bytes: int = 128 * 2**20
    """Memory of all particles that wait to be sent or are being sent, each with 8 KiB for itself. Beyond it the peer
    that has most loses its oldest."""
    max_sending_bytes_per_peer: int = 32 * 2**20
    """Memory of those that one peer brought."""
    send_timeout: float = 10.0
    """Longest time for sending one particle, dialling included."""
    receive_timeout: float = 10.0
    """Longest time for receiving one particle."""
    max_receiving_per_peer: int = 16
    """Streams of one peer that are read at the same time; others wait."""
    max_receiving_bytes_per_peer: int = 16 * 2**20
    """Memory of messages from one peer that have arrived in part."""
    max_receiving_bytes: int = 128 * 2**20
    """Memory of messages that have arrived in part. Beyond it the peer that has most loses its oldest."""
    sign_as_original: bool = False
    """`sig.sign` signs whatever get_record_bytes or get_record_metadata_bytes of this host made, for anyone: the
    original's rule. By default only records that the hosting policy allows are signed."""
