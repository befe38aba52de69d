"""Builders: peers, particles and steps."""

from __future__ import annotations

from aqua_compat.particles.engine.steps import CallResult, Step, StepLimits, build_results
from aqua_compat.particles.particle import Particle, decode, sign
from overlay.identity import Identity
from overlay.limits.fair_quota import FairQuota, Holding

CLIENT = Identity.from_seed(bytes(range(32)))
HOST = Identity.from_seed(bytes(range(1, 33)))
OTHER = Identity.from_seed(bytes(range(2, 34)))

NOW = 1_700_000_000.0  # seconds since 1970
LIMITS = StepLimits(script=100_000, particle=1_000_000, call_result=100_000, calls=100_000)


def a_particle(
    script: str = "(null)",
    *,
    by: Identity = CLIENT,
    particle_id: str = "a particle",
    at: float = NOW,
    ttl: float = 10.0,
    data: bytes = b"",
) -> Particle:
    return sign(by, particle_id=particle_id, timestamp=int(at * 1000), ttl=int(ttl * 1000), script=script, data=data)


def a_holding() -> Holding:
    """Of memory that nobody bounds."""
    return FairQuota(10**9, 10**9).open("a client", lambda: None)


def decoded(message: bytes, max_script: int = 10**6) -> Particle:
    """The particle of a message, with its data. Raises BadParticle."""
    particle, data = decode(message, max_script)
    return particle.with_data(b"".join(data))


def a_step(
    script: str,
    previous: bytes = b"",
    incoming: bytes = b"",
    results: dict[int, CallResult] | None = None,
    *,
    on: Identity = HOST,
    particle_id: str = "a particle",
    limits: StepLimits = LIMITS,
) -> Step:
    return Step(
        script=script,
        previous=previous,
        incoming=incoming,
        results=build_results(results or {}),
        init_peer_id=CLIENT.peer_id,
        current_peer_id=on.peer_id,
        timestamp=int(NOW * 1000),
        ttl=10_000,
        particle_id=particle_id,
        limits=limits,
    )


def call(peer_id: str, service: str, function: str, arguments: str = "", output: str = "") -> str:
    """A call instruction."""
    return f'(call "{peer_id}" ("{service}" "{function}") [{arguments}] {output})'


def an_endless_script(host: str, depth: int = 6) -> str:
    """Folds within folds over what `op.identity` of the host gives: with 50 elements, for years."""
    body = "(null)"
    for level in range(depth):
        body = f"(fold x i{level} (seq {body} (next i{level})))"
    return f"(seq {call(host, 'op', 'identity', '[]', 'x')} {body})"
