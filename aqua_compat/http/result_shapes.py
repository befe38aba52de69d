"""The schemas of what the native API tells of resources."""

from __future__ import annotations

from typing import Final

from aqua_compat.http.json_shape import STRING, Schema, array_of, object_of, shape_of
from aqua_compat.http.parameters import PEER_ID
from registry.health.state import HealthState
from registry.model.endpoints import Instance
from registry.model.owner_index import ListedResource
from registry.model.values import Key, Record
from registry.watch.watch_event import EventKind

RECORD: Final = shape_of(Record)
KEY: Final = object_of({**shape_of(Key)["properties"], "name": STRING})
_STATE: Final[dict[str, Schema]] = {
    "state": {"enum": [str(state) for state in HealthState]},
    "since": {"type": "integer"},
    "note": STRING,
}
HEALTH: Final = object_of(
    {
        "up": {"type": "boolean"},
        "up_or_down_for": {"type": ["number", "null"]},
        "accusers": array_of(PEER_ID),
        "stopped": {"type": "boolean"},
        **_STATE,
        "instances": {"type": "object", "additionalProperties": object_of(_STATE)},
    },
    optional=("instances",),
)
_TOLD: Final = object_of({**RECORD["properties"], "instances": array_of(shape_of(Instance))})
RESOLVED: Final[Schema] = {"anyOf": [_TOLD, object_of({"record": _TOLD, "health": HEALTH})]}
_NULLABLE_ID: Final[Schema] = {"type": ["string", "null"]}
_POLICY: Final[Schema] = {
    "anyOf": [
        {"type": "null"},
        object_of({"revision": {"type": "integer"}, "known": {"const": False}}),
        object_of(
            {
                "revision": {"type": "integer"},
                "known": {"const": True},
                "open": {"type": "boolean"},
                "allow": array_of(PEER_ID),
                "roots": array_of(PEER_ID),
                "deny": array_of(
                    object_of({"issuer": PEER_ID, "host": _NULLABLE_ID, "until": {"type": ["integer", "null"]}})
                ),
                "hosts": array_of(PEER_ID),
                "longest_chain": {"type": "integer"},
            }
        ),
    ]
}
POLICY_OF_RESOURCE: Final = object_of(
    {"resource_id": STRING, "name": STRING, "label": STRING, "owner": PEER_ID, "policy": _POLICY}
)
ID: Final = object_of({"resource_id": STRING, "name": STRING})
LISTED: Final = object_of({**shape_of(ListedResource)["properties"], "name": STRING})
EVENT: Final[Schema] = {
    "anyOf": [
        object_of(
            {
                "event": {"const": "snapshot"},
                "records": array_of(object_of({**RECORD["properties"], "health": HEALTH}, optional=("health",))),
            }
        ),
        object_of(
            {
                "event": {"enum": [kind.value for kind in EventKind if kind is not EventKind.SNAPSHOT]},
                "record": RECORD,
                "coalesced": {"type": "integer"},
                "reason": STRING,
                "health": HEALTH,
            },
            optional=("reason", "health"),
        ),
    ]
}
