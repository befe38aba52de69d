"""Which functions a call by name may reach, with the Aqua type of each argument in order."""

from __future__ import annotations

FUNCTIONS: dict[str, tuple[tuple[str, str], ...]] = {
    # resources-api
    "getResource": (("resource_id", "ResourceId"),),
    "getResourceId": (("label", "string"), ("peer_id", "string")),
    "createResource": (("label", "string"),),
    "registerService": (
        ("resource_id", "ResourceId"),
        ("value", "string"),
        ("peer_id", "PeerId"),
        ("service_id", "?string"),
    ),
    "unregisterService": (("resource_id", "ResourceId"), ("peer_id", "PeerId")),
    "resolveResource": (("resource_id", "ResourceId"), ("ack", "i16")),
    "executeOnResource": (("resource_id", "ResourceId"), ("ack", "i16"), ("call", "Record -> ()")),
    # registry-api
    "getKeySignature": (("label", "string"), ("timestamp_created", "u64")),
    "getRecordMetadata": (
        ("key_id", "string"),
        ("value", "string"),
        ("peer_id", "string"),
        ("relay_id", "[]string"),
        ("service_id", "[]string"),
        ("solution", "[]u8"),
    ),
    "getRecordSignature": (("metadata", "RecordMetadata"), ("timestamp_created", "u64")),
    "getTombstoneSignature": (
        ("key_id", "string"),
        ("peer_id", "string"),
        ("timestamp_issued", "u64"),
        ("solution", "[]u8"),
    ),
    "registerKey": (("label", "string"), ("timestamp_created", "u64"), ("signature", "[]u8")),
    "putRecord": (("metadata", "RecordMetadata"), ("timestamp_created", "u64"), ("signature", "[]u8")),
    "addTombstone": (
        ("key_id", "string"),
        ("peer_id", "string"),
        ("timestamp_issued", "u64"),
        ("solution", "[]u8"),
        ("signature", "[]u8"),
    ),
    "getKeyMetadata": (("key_id", "string"),),
    "republishKey": (("key", "Key"),),
}
