"""A registry that answers what a test says, for what the layer above makes of it."""

from __future__ import annotations

from typing import Any, cast

from aqua_compat import AquaClient, Constants
from overlay.identity import Identity
from registry.model.names import Names
from registry.model.signing import key_digest, metadata_digest, record_digest
from registry.model.values import Key, Record, RecordMetadata

OWNER = Identity.from_seed(bytes(range(32)))
HOST = Identity.from_seed(bytes(range(1, 33)))


class ScriptedRegistry:
    """Answers every function from `answers` (a value, or an exception to raise) and remembers what was asked."""

    def __init__(self, **answers: object) -> None:
        self.identity = OWNER
        self.peer_id = OWNER.peer_id
        self.host_peer_id = HOST.peer_id
        self.answers = answers
        self.asked: list[tuple[str, tuple[object, ...], dict[str, object]]] = []
        self.unreachable: list[str] = []

    def note_unreachable(self, peer_id: str) -> None:
        """See `Registry.note_unreachable`."""
        self.unreachable.append(peer_id)

    def __getattr__(self, name: str) -> Any:
        async def answer(*arguments: object, **options: object) -> object:
            self.asked.append((name, arguments, options))
            result = self.answers[name]
            if isinstance(result, BaseException):
                raise result
            return result

        return answer


def acting(registry: ScriptedRegistry, constants: Constants | None = None, names: Names | None = None) -> AquaClient:
    """The API over a scripted registry."""
    return AquaClient(cast("Any", registry), constants, names=names)


def a_key(label: str = "echo") -> Key:
    signature = OWNER.sign(key_digest(label, OWNER.peer_id, 1000, b"", ""))
    return Key(
        label=label,
        owner_peer_id=OWNER.peer_id,
        timestamp_created=1000,
        challenge=b"",
        challenge_type="",
        signature=signature,
    )


def a_record(value: str = "v", host: Identity = HOST) -> Record:
    """A record with good signatures: issued by OWNER, hosted by `host`."""
    fields = (a_key().id, OWNER.peer_id, host.peer_id, 1000, b"\x01\xff", value, (), ("echo",))
    digest = metadata_digest(*fields)
    metadata = RecordMetadata(*fields, issuer_signature=OWNER.sign(digest))
    signature = host.sign(record_digest(digest, metadata.issuer_signature, 1001))
    return Record(metadata=metadata, timestamp_created=1001, signature=signature)
