"""The parameters that operations of the native API share: how each is read, and its schema."""

from __future__ import annotations

from typing import Any, Final

from aqua_compat.http.json_shape import STRING, Schema
from aqua_compat.http.operations import Parameter
from aqua_compat.schema.arguments import check_ack, check_peer_id, check_string
from registry.client.registry import DEFAULT_TIMEOUT
from registry.model.values import MAX_LABEL
from registry.permission.policy import FOR_EVER
from registry.protocol.index_messages import MOST_LISTED

ME: Final = "me"  # the node itself, where a peer is named
LONGEST: Final = 600.0  # seconds that a request may ask for
LONGEST_NAME: Final = MAX_LABEL + 65  # characters of an id or a name in a path


def resource(text: str) -> str:
    """The id or name of a resource. Raises ValueError."""
    if len(text) > LONGEST_NAME:
        raise ValueError(f"has {len(text)} characters, more than {LONGEST_NAME}")
    return check_string("it", text)


def entry(text: str) -> tuple[str, str]:
    """An entry of metadata, KEY=VALUE. Raises ValueError."""
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"is {text[:80]!r}, without `=`; give KEY=VALUE, as in zone=eu")
    return key, value


def seconds(text: str) -> float:
    """Seconds that a request may take. Raises ValueError."""
    seconds = float(text)
    if not 0 < seconds <= LONGEST:  # false of what is no number, too
        raise ValueError(f"is {text[:20]}, not seconds within 0 and {LONGEST:g}")
    return seconds


def page_size(text: str) -> int:
    """How many there are on a page. Raises ValueError."""
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) <= MOST_LISTED):
        raise ValueError(f"is {text[:20]!r}, not a number from 1 to {MOST_LISTED}")
    return int(text)


def moment(text: str) -> int:
    """Seconds since 1970. Raises ValueError."""
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) < FOR_EVER):
        raise ValueError(f"is {text[:20]!r}, not whole seconds since 1970")
    return int(text)


def count(least: int) -> Any:
    """How a number of replicas, this one or more, is read."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 6):
            raise ValueError(f"is {text[:20]!r}, not a number from {least} to 32767")
        count = check_ack("it", int(text))
        if count < least:
            raise ValueError(f"is {count}, less than {least}")
        return count

    return parse


def flag(text: str) -> bool:
    """Whether something is wanted. Raises ValueError."""
    if text not in ("true", "false"):
        raise ValueError(f"is {text[:20]!r}, neither true nor false")
    return text == "true"


def peer(text: str) -> str:
    """A peer id. Raises ValueError."""
    return check_peer_id("it", text)


def peer_or_me(text: str) -> str:
    """A peer id, or `me`. Raises ValueError."""
    return ME if text == ME else check_peer_id("it", text)


def plain(text: str) -> str:
    """Any text that a resource may have. Raises ValueError."""
    return check_string("it", text)


PEER_ID: Final[Schema] = {"type": "string", "description": "base58 of a peer id"}
RESOURCE: Final = Parameter("resource_id", "path", "id or name of the resource", STRING, resource, is_required=True)
PEER: Final = Parameter("peer_id", "path", "id of the peer; `me` for this node", STRING, peer_or_me, is_required=True)
HOST: Final = Parameter(
    "peer_id", "path", "peer that the record names; `me` for this node", STRING, peer_or_me, is_required=True
)
TIMEOUT: Final = Parameter(
    "timeout",
    "query",
    "seconds for the whole operation",
    {"type": "number", "exclusiveMinimum": 0, "maximum": LONGEST, "default": DEFAULT_TIMEOUT},
    seconds,
    DEFAULT_TIMEOUT,
)
FACTOR: Final = Parameter(
    "factor",
    "query",
    "replicas that must have the write on disk",
    {"type": "integer", "minimum": 1, "maximum": 32_767, "default": 1},
    count(1),
    1,
)
ACK: Final = Parameter(
    "ack",
    "query",
    "replicas that must have answered",
    {"type": "integer", "minimum": 0, "maximum": 32_767, "default": 1},
    count(0),
    1,
)
TRUST: Final = (
    Parameter("trust", "query", "show only what this peer registered, or is trusted otherwise", PEER_ID, peer, (),
              repeats=True),
    Parameter("trust_root", "query", "show only what comes with a certificate of this peer, or is trusted otherwise",
              PEER_ID, peer, (), repeats=True),
)  # fmt: skip
WANTED: Final = (
    Parameter("tag", "query", "only instances with this tag, the heaviest first; of several with all", STRING, plain,
              (), repeats=True),
    Parameter("meta", "query", "only instances with this metadata, as KEY=VALUE; of several with all", STRING, entry,
              (), repeats=True),
)  # fmt: skip
