"""Checks of what a caller passes: a wrong argument is the caller's mistake and raises at once, before any network.

The names are Aqua's types. A wrong Python type is a TypeError, a right type with an impossible value a ValueError
(`PeerIdError` and `InvalidValue` of the layers below are ValueErrors too).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from overlay.identity import public_key_of
from registry.model.names import Names

Form = TypeVar("Form")

I16_MAX = 2**15 - 1
U64_MAX = 2**64 - 1


def check_string(name: str, value: object) -> str:
    """A `string`: text that UTF-8 can express."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} isn't valid Unicode text: {error.reason}") from None
    return value


def check_resource_id(name: str, value: object, names: Names) -> str:
    """The id of a resource, given as it is or by a name such as `web@acme`. Whether an id is one isn't checked here."""
    text = check_string(name, value)
    return names.resource_id(text) if "@" in text else text


def check_optional_string(name: str, value: object) -> str | None:
    """A `?string`: text or None."""
    return None if value is None else check_string(name, value)


def check_strings(name: str, value: object) -> tuple[str, ...]:
    """A `[]string`: a list or tuple of texts."""
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{name} must be a list of str, not {type(value).__name__}")
    return tuple(check_string(f"{name}[{index}]", item) for index, item in enumerate(value))


def check_peer_id(name: str, value: object) -> str:
    """A `PeerId`: base58 of a peer id with an Ed25519 key in it."""
    peer_id = check_string(name, value)
    try:
        public_key_of(peer_id)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return peer_id


def check_bytes(name: str, value: object) -> bytes:
    """Checks a `[]u8`."""
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    raise TypeError(f"{name} must be bytes, not {type(value).__name__}")


def check_u64(name: str, value: object) -> int:
    """A `u64`; the data types refuse what is above 2^63 - 1 later on."""
    return _check_integer(name, value, U64_MAX)


def check_u32(name: str, value: object) -> int:
    """Checks a `u32`."""
    return _check_integer(name, value, 2**32 - 1)


def check_bool(name: str, value: object) -> bool:
    """Checks a `bool`."""
    return check_instance(name, value, bool)


def check_ack(name: str, value: object) -> int:
    """Checks an `i16` that counts replicas: 0 or more."""
    return _check_integer(name, value, I16_MAX)


def check_instance(name: str, value: object, form: type[Form]) -> Form:
    """Checks that a value is one of the data types."""
    if not isinstance(value, form):
        raise TypeError(f"{name} must be a {form.__name__}, not {type(value).__name__}")
    return value


def _check_integer(name: str, value: object, maximum: int) -> int:
    # bool is an int to Python, and never one to Aqua.
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if not 0 <= value <= maximum:
        raise ValueError(f"{name} is {value}, not within 0 and {maximum}")
    return value


def bytes_of_numbers(name: str, value: object) -> bytes:
    """A `[]u8` written as JSON: an array of numbers from 0 to 255."""
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise TypeError(f"{name} must be an array of numbers, not {type(value).__name__}")
    try:
        if set(map(type, value)) <= {int}:
            return bytes(value)  # hundreds of times faster than looking at each
    except ValueError:
        pass
    return bytes(_check_integer(f"{name}[{index}]", item, 255) for index, item in enumerate(value))
