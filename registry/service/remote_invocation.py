"""Calling the service's functions by name, for a caller who may be a stranger, with arguments as CBOR values.

This host's time and this host's weights are what counts: a stranger's are replaced (in the particle path of the
original, tetraplets prove the same).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, get_type_hints

import msgspec

from overlay.limits.time_slices import turn
from registry.errors import InvalidValue, NotPermitted, NotResponsible
from registry.model.signing import key_id_of
from registry.model.values import Key, RecordMetadata
from registry.protocol.network import Clock
from registry.replica.weights import Weights
from registry.service.functions import FUNCTIONS, RegistryService

STORING: Final = frozenset({"register_key", "republish_key", "put_record", "add_tombstone"})
"""What makes a node store something at a stranger's word, if it is responsible for it."""

OPERATORS: Final = frozenset(
    {
        "clear_expired",
        "evict_stale",
        "republish_records",
        "republish_tombstones",
        "set_expired_timeout",
        "set_stale_timeout",
    }
)
"""What only the operator calls; replicas exchange batches by calls of their own."""


class Invocation:
    """Calls functions of `service`; `is_responsible` tells whether this node stores a key id."""

    def __init__(
        self,
        service: RegistryService,
        host_peer_id: str,
        weights: Weights,
        clock: Clock,
        is_responsible: Callable[[str], bool],
    ) -> None:
        self._service = service
        self._host_peer_id = host_peer_id
        self._weights = weights
        self._clock = clock
        self._is_responsible = is_responsible

    async def call(self, caller: str, function: str, arguments: Sequence[Any]) -> Any:
        """The function's result. The host fills in `current_timestamp_sec` and weights where they are None.

        Raises InvalidValue for an unknown function or malformed arguments, NotPermitted, NotResponsible.
        """
        is_operator = caller == self._host_peer_id
        if function not in FUNCTIONS:
            raise InvalidValue(f"the service registry has no function {function}")
        if not is_operator and function in OPERATORS:
            raise NotPermitted(function)
        method = getattr(self._service.on_behalf_of(caller), function)
        await turn(0.0)  # decoding, typing and looking at tens of thousands of values take some ms each
        values = self._typed(method, function, arguments, is_operator=is_operator)
        await turn(0.0)
        if "weight" in values:
            values["weight"] = self._weights.get_weight(_weighed_peer(values, caller))
        if not is_operator and function in STORING and not self._is_responsible(_key_id(values, caller)):
            raise NotResponsible(_key_id(values, caller))
        try:
            return await method(**values)
        except (UnicodeEncodeError, OverflowError) as error:  # lone surrogates, numbers beyond SQLite's
            raise InvalidValue(f"{function}: {error}") from error

    def _typed(
        self, method: Callable[..., Any], function: str, arguments: Sequence[Any], *, is_operator: bool
    ) -> dict[str, Any]:
        forms = get_type_hints(method)
        forms.pop("return")
        if len(arguments) != len(forms):
            raise InvalidValue(f"{function} takes {len(forms)} arguments, not {len(arguments)}")
        values: dict[str, Any] = {}
        for (name, form), argument in zip(forms.items(), arguments, strict=True):
            if name == "weight":
                values[name] = None
            elif name == "current_timestamp_sec" and (argument is None or not is_operator):
                values[name] = int(self._clock())
            else:
                try:
                    values[name] = msgspec.convert(argument, form, strict=True, builtin_types=(bytes,))
                except (msgspec.ValidationError, RecursionError) as error:
                    raise InvalidValue(f"{function}: {name}: {error}") from error
        return values


def _weighed_peer(values: dict[str, Any], caller: str) -> str:
    """Whose weight counts: a key's owner, a record's issuer."""
    if isinstance(values.get("key"), Key):
        return str(values["key"].owner_peer_id)
    if isinstance(values.get("metadata"), RecordMetadata):
        return str(values["metadata"].issued_by)
    owners = values.get("owner_peer_id") or (caller,)
    return str(owners[0])


def _key_id(values: dict[str, Any], caller: str) -> str:
    if isinstance(values.get("key"), Key):
        return str(values["key"].id)
    if isinstance(values.get("metadata"), RecordMetadata):
        return str(values["metadata"].key_id)
    if "label" in values:
        return key_id_of(values["label"], _weighed_peer(values, caller))
    return str(values["key_id"])
