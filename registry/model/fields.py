"""Checks of the fields that values have.

They check types too: values are also made straight from a caller's arguments, and are keys of caches.
"""

from __future__ import annotations

from overlay.errors import PeerIdError
from overlay.identity import public_key_of
from registry.errors import InvalidValue, PeerIdParseError

U63_MAX = 2**63 - 1  # SQLite's largest integer; the original's u64 above it are refused
MAX_NAME = 1024  # challenge type, relay id, service id
SHORT_ID = 64  # a peer or resource id: 52 and 44 today


def check_text(field: str, text: object, limit: int) -> None:
    """Raises InvalidValue unless it is text of at most `limit` bytes of UTF-8."""
    if type(text) is not str:
        raise InvalidValue(f"{field} is {type(text).__name__}, not text")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:  # lone surrogates
        raise InvalidValue(f"{field} isn't valid UTF-8: {error.reason}") from error
    if size > limit:
        raise InvalidValue(f"{field} has {size} bytes, more than {limit}")


def check_bytes(field: str, content: object, limit: int) -> None:
    """Raises InvalidValue unless it is bytes, `limit` at most."""
    if type(content) is not bytes:
        raise InvalidValue(f"{field} is {type(content).__name__}, not bytes")
    if len(content) > limit:
        raise InvalidValue(f"{field} has {len(content)} bytes, more than {limit}")


def check_option(field: str, option: object) -> None:
    """Raises InvalidValue unless it is a tuple of no or one name."""
    if type(option) is not tuple:
        raise InvalidValue(f"{field} is {type(option).__name__}, not a tuple of no or one string")
    if len(option) > 1:
        raise InvalidValue(f"{field} holds {len(option)} strings, more than one")
    for text in option:
        check_text(field, text, MAX_NAME)


def check_timestamp(field: str, timestamp: object) -> None:
    """Raises InvalidValue unless it is whole seconds that SQLite can hold."""
    if type(timestamp) is not int:  # nor a bool
        raise InvalidValue(f"{field} is {type(timestamp).__name__}, not whole seconds")
    if not 0 <= timestamp <= U63_MAX:
        # A number of any length may come; printing one of more than 4,300 digits is an error.
        shown = timestamp if abs(timestamp) < 2**128 else "a larger number"
        raise InvalidValue(f"{field} is {shown}, not within 0 and {U63_MAX} seconds")


def check_peer_id(field: str, peer_id: object) -> None:
    """Raises InvalidValue unless it is the id of an Ed25519 key."""
    if type(peer_id) is not str:
        raise InvalidValue(f"{field} is {type(peer_id).__name__}, not a peer id")
    try:
        public_key_of(peer_id)
    except PeerIdError as error:
        raise InvalidValue(str(PeerIdParseError(f"{field}: {error}"))) from error
