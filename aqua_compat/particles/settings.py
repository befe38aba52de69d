"""Bounds and options of the door for Aqua."""

from __future__ import annotations

from msgspec import Struct


class AquaSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes in bytes, times in seconds. What one peer sends can hold about `max_bytes_per_peer` of memory."""

    enabled: bool = False
    """Whether the node takes particles; `--aqua`."""
    folder: str = ""
    """Where the interpreter is installed; by default in the user's data folder."""
    interpreters: int = 2
    """Steps at the same time, each in a thread with an instance of its own. More than cores only costs."""
    max_memory: int = 128 * 2**20
    """Of one instance; a step that needs more fails."""
    kept_memory: int = 48 * 2**20
    """An instance that has grown beyond it is replaced: its memory never shrinks."""
    step_timeout: float = 2.0
    """Longest step. Usual ones take milliseconds; a longer limit lets hostile scripts take more of the CPU."""
    max_script: int = 512 * 1024
    """Of a particle's AIR."""
    max_particle: int = 4 * 2**20
    """Of a particle on the wire and of its data; the original's client takes no more than 4 MiB."""
    max_result: int = 2**20
    """Of the JSON of one call's result."""
    max_requests: int = 2 * 2**20
    """Of the calls that one step makes, with their arguments."""
    max_lifetime: float = 600.0
    """Particles that would live longer from now on are refused."""
    max_actors: int = 8192
    """Particles that are kept until they expire; beyond it those that are done go first."""
    max_actors_per_peer: int = 2048
    """Of those, brought by one peer."""
    max_bytes: int = 256 * 2**20
    """Of all that is kept of particles."""
    max_bytes_per_peer: int = 64 * 2**20
    """Of those, brought by one peer."""
    max_waiting: int = 64
    """Copies of one particle that wait for their step, brought by one peer; four times as many of all."""
    max_calls: int = 256
    """Calls of one particle that are under way here; those beyond it fail."""
    max_calls_per_peer: int = 1024
    """Calls that are under way here of all particles that one peer brought; those beyond it fail."""
    max_calls_of_all: int = 16_384
    """Calls that are under way here; those beyond it fail."""
    max_lookups: int = 64
    """What asks other peers at the same time: kad.neighborhood, peer.connect, sig.sign, and sending to peers that are
    nowhere known. What is beyond it waits; a place that becomes free goes to the peer that has fewest."""
    max_lookups_per_peer: int = 16
    """Of those, for particles that one peer brought."""
    max_next_peers: int = 64
    """Peers to which one step sends a particle on."""
    max_sending_per_peer: int = 256
    """Particles that one peer brought and that wait for being sent to one other, or are under way."""
    max_sending_bytes: int = 128 * 2**20
    """Of all particles that wait for being sent or are under way, each with 8 KiB for itself; beyond it the peer that
    has most loses its oldest."""
    max_sending_bytes_per_peer: int = 32 * 2**20
    """Of those, brought by one peer."""
    send_timeout: float = 10.0
    """For sending one particle, dialling included."""
    receive_timeout: float = 10.0
    """For receiving one particle."""
    max_receiving_per_peer: int = 16
    """Streams of one peer that are read at the same time; others wait."""
    max_receiving_bytes_per_peer: int = 16 * 2**20
    """Of messages of one peer that have come in part."""
    max_receiving_bytes: int = 128 * 2**20
    """Of messages that have come in part."""
    sign_as_original: bool = False
    """`sig.sign` signs whatever get_record_bytes or get_record_metadata_bytes of this host made, for anyone: the
    original's rule. By default only records that the hosting policy allows are signed."""
