"""The service `registry` for scripts: the same functions on the same storage, with the original's tetraplet checks.

Rules, in this order:
1. Arguments are of their Aqua types, or the call fails. Values of a type that are none are refused: where the
   function's result has `success`, that is false.
2. `current_timestamp_sec` is a result of this host's peer.timestamp_sec, each weight one of its trust-graph.get_weight:
   a tetraplet says so of every argument, except where there is nothing to republish.
3. Scripts of strangers make this node store only what it is responsible for, or hosts.
4. What was new here goes to the rest of the neighbourhood (`registry.replication.rumor`).
5. What scripts resolve, by `get_records` and the merging of that, has no record whose host is down or that doesn't pass
   (`usable_records`). What they replicate, by `get_stale_local_records`, has all.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Any, Final, NamedTuple, get_type_hints

import msgspec

from aqua_compat.particles.engine.actor import Context
from aqua_compat.particles.engine.steps import Tetraplet
from aqua_compat.particles.errors import CallError
from aqua_compat.particles.host_calls.host_calls import HostFunction, Tetraplets
from aqua_compat.particles.host_calls.usable_records import UsableRecords
from aqua_compat.schema.interface import SERVICE_FUNCTIONS
from aqua_compat.schema.json_codec import from_json, to_json
from overlay.limits.time_slices import TimeSlices
from registry.errors import (
    InvalidTimestampTetraplet,
    InvalidValue,
    InvalidWeightTetraplet,
    NotResponsible,
    RegistryError,
    RegistryRefusal,
    StorageError,
)
from registry.health.health_of_hosts import HealthOfHosts
from registry.model.merge import ResourceState
from registry.model.service_results import GetRecordsResult, GetTombstonesResult, MergeResult
from registry.model.values import MAX_PROOF, Key, Record, RecordMetadata, State, Tombstone, encode
from registry.protocol.messages import Item
from registry.replica.ingest import Ingest
from registry.replication.rumor import Rumors
from registry.service import RegistryService
from registry.storage import Store

_MAX_MADE: Final = 64  # results of get_record_bytes remembered per particle

TIME: Final = ("peer", "timestamp_sec")
WEIGHT: Final = ("trust-graph", "get_weight")


class MadeBytes(NamedTuple):
    """The record whose bytes get_record_bytes made."""

    metadata: RecordMetadata
    timestamp_created: int


class _Signature:
    """Arguments and result of one function of the service."""

    def __init__(self, function: str) -> None:
        self.arguments = SERVICE_FUNCTIONS[function]
        self.result: Any = get_type_hints(getattr(RegistryService, function))["return"]


class RegistryCalls:
    """Answers calls of the service as the node `host_peer_id`."""

    def __init__(
        self,
        service: RegistryService,
        store: Store,
        ingest: Ingest,
        rumors: Rumors,
        health: HealthOfHosts,
        host_peer_id: str,
        time_slices: TimeSlices,
    ) -> None:
        self._time_slices = time_slices
        self._usable = UsableRecords(health, host_peer_id, time_slices)
        self._service = service
        self._store = store
        self._ingest = ingest
        self._rumors = rumors
        self._host_peer_id = host_peer_id

    def functions(self) -> dict[str, HostFunction]:
        """The 23 functions of the service, by name."""
        return {name: self._function(name, _Signature(name)) for name in SERVICE_FUNCTIONS}

    def _function(self, name: str, signature: _Signature) -> HostFunction:
        async def call(context: Context, arguments: list[object], tetraplets: Tetraplets) -> object:
            values: dict[str, Any] = {}
            try:
                await self._time_slices.run(context.source, _typing(name, signature, arguments, values))
                for position, (argument, aqua_type) in enumerate(signature.arguments):
                    self._check_origin(argument, aqua_type, values, tetraplets, position)
                return await self._as_json(context.source, await self._call(context, name, values))
            except RegistryError as error:
                text = _text(error)
                if isinstance(signature.result, type) and issubclass(signature.result, msgspec.Struct):
                    fields = signature.result.__struct_fields__
                    if "success" in fields:
                        return to_json(signature.result(success=False, error=text))
                raise CallError(text) from error

        return call

    def _check_origin(
        self, argument: str, aqua_type: str, values: dict[str, Any], tetraplets: Tetraplets, position: int
    ) -> None:
        found = tetraplets[position] if position < len(tetraplets) else ()
        if argument == "current_timestamp_sec":
            if values.get("records") == ():
                return  # as there, where nothing is republished at no time
            if not found or not self._is_of_this_host(found[0], TIME):
                raise InvalidTimestampTetraplet(shown_tetraplet(found[0]) if found else "[]")
        elif aqua_type == "WeightResult" or (aqua_type == "[]WeightResult" and values[argument]):
            count = len(values[argument]) if aqua_type == "[]WeightResult" else 1
            for one in range(count):
                if one >= len(found) or not self._is_of_this_host(found[one], WEIGHT):
                    raise InvalidWeightTetraplet(shown_tetraplet(found[one]) if one < len(found) else "[]")

    def _is_of_this_host(self, found: Tetraplet, function: tuple[str, str]) -> bool:
        return found.peer_pk == self._host_peer_id and (found.service_id, found.function_name) == function

    async def _call(self, context: Context, name: str, values: dict[str, Any]) -> object:
        source = context.source
        service = self._service.on_behalf_of(
            context.init_peer_id, source=source, turn=lambda: self._time_slices.slice(source)
        )
        written = list(_written(name, values, context.init_peer_id))
        news: list[_Written] = []
        if written:
            known = await self._store.resource(written[0].key_id)
            self._check_responsible(context, written, known.key)
            news = [value for value in written if not _is_known(value, known)]
        result = await getattr(service, name)(**values)
        if name == "get_record_bytes" and len(context.made_bytes) < _MAX_MADE:
            made = MadeBytes(**values)
            if context.memory.take(len(encode(made.metadata))):
                context.made_bytes[result] = made
        if news and result.success:
            stored = await self._store.resource(written[0].key_id)
            if stored.key is not None:
                await self._time_slices.run(source, self._spreading_all(stored.key, news, stored))
        if isinstance(result, MergeResult) and result.success:
            return MergeResult(success=True, result=await self._usable.of_given(source, result.result))
        if name == "get_records" and result.success:
            return GetRecordsResult(success=True, result=await self._usable.of_stored(source, result.result))
        return result

    def _check_responsible(self, context: Context, written: Sequence[_Written], stored: Key | None) -> None:
        """Who hosts a record has a part in it and in its key; `stored`: the key as it is here."""
        key_id = written[0].key_id
        if self._ingest.is_responsible(key_id):
            return
        for value in written:
            if value.key_id != key_id:
                raise NotResponsible(value.key_id)
            if value.state is None:
                hosts = stored is not None or key_id in context.countersigned_keys
            else:
                hosts = value.state.slot.peer_id == self._host_peer_id
            if not hosts:
                raise NotResponsible(key_id)

    async def _as_json(self, source: str, result: object) -> object:
        """A result as JSON values; long ones are converted in slices."""
        if not isinstance(result, GetRecordsResult | GetTombstonesResult | MergeResult):
            return to_json(result)
        converted: list[object] = []

        def convert() -> Iterator[None]:
            for value in result.result:
                converted.append(to_json(value))
                yield

        await self._time_slices.run(source, convert())
        return {"success": result.success, "error": result.error, "result": converted}

    def _spreading_all(self, key: Key, news: Sequence[_Written], stored: ResourceState) -> Iterator[None]:
        for value in news:
            if value.state is None:
                self._rumors.note(Item(key))
            elif stored.slots.get(value.state.slot) == value.state:
                self._rumors.note(Item(key, value.state))
            yield


class _Written(NamedTuple):
    """A value that a function would store."""

    key_id: str
    key: Key | None
    state: State | None


def _typing(name: str, signature: _Signature, arguments: list[object], values: dict[str, Any]) -> Iterator[None]:
    """Fills `values` with the arguments in their types, step by step. Raises CallError; RegistryError for values that
    are of their type and are refused, such as a peer id that is none."""
    if len(arguments) != len(signature.arguments):
        raise CallError(f"{name} takes {len(signature.arguments)} arguments, not {len(arguments)}")
    for (argument, aqua_type), value in zip(signature.arguments, arguments, strict=True):
        try:
            values[argument] = yield from _converting(aqua_type, argument, value)
        except (TypeError, ValueError) as error:
            if isinstance(error.__cause__, RegistryError):  # of its type, and refused
                raise error.__cause__ from None
            raise CallError(f"{name}: {error}") from error


def _converting(aqua_type: str, name: str, value: object) -> Generator[None, None, object]:
    """As `from_json`, one step per value that isn't an array of others. Raises TypeError or ValueError."""
    if aqua_type.startswith("[]") and aqua_type not in ("[]u8", "[]string") and isinstance(value, list):
        found = []
        for index, item in enumerate(value):
            found.append((yield from _converting(aqua_type[2:], f"{name}[{index}]", item)))
        yield
        return tuple(found)
    yield
    _check_arrays(name, value)
    return from_json(aqua_type, name, value)


def _check_arrays(name: str, value: object) -> None:
    """No array in a value of the registry's is longer than the longest proof. Raises ValueError."""
    if isinstance(value, list) and len(value) > MAX_PROOF:
        raise ValueError(f"{name} has {len(value)} elements, more than {MAX_PROOF}")
    if isinstance(value, dict):
        for field, inner in value.items():
            _check_arrays(f"{name}.{field}", inner)


def _written(name: str, values: dict[str, Any], caller: str) -> Iterator[_Written]:
    """What a function would store. Raises InvalidValue."""
    if name == "register_key":
        fields = ("timestamp_created", "challenge", "challenge_type", "signature")
        owner = (values["owner_peer_id"] or (caller,))[0]
        key = Key(values["label"], owner, *(values[field] for field in fields))
        yield _Written(key.id, key, None)
    elif name == "republish_key":
        yield _Written(values["key"].id, values["key"], None)
    elif name == "put_record":
        record = Record(values["metadata"], values["timestamp_created"], values["signature"])
        yield _Written(record.key_id, None, record)
    elif name == "add_tombstone":
        tombstone = ("key_id", "issued_by", "peer_id", "timestamp_issued", "solution", "signature")
        yield _Written(values["key_id"], None, Tombstone(*(values[field] for field in tombstone)))
    elif name in ("republish_records", "republish_tombstones"):
        for state in values.get("records") or values.get("tombstones") or ():
            yield _Written(state.key_id, None, state)


def _is_known(value: _Written, known: ResourceState) -> bool:
    if value.state is None:
        return bool(known.key is not None and value.key is not None and known.key.order() >= value.key.order())
    return known.slots.get(value.state.slot) == value.state


def _text(error: RegistryError) -> str:
    if isinstance(error, StorageError):  # its text names this node's files: for the log, not for peers
        return "Internal error: the disk refused"
    return str(error) if isinstance(error, RegistryRefusal | InvalidValue) else f"Internal error: {error}"


def shown_tetraplet(found: Tetraplet) -> str:
    """A tetraplet in the original's text."""
    fields = (
        ("peer_pk", found.peer_pk),
        ("service_id", found.service_id),
        ("function_name", found.function_name),
        ("json_path", found.lens),
    )
    shown = ", ".join(f'{name}: "{value[:128]}"' for name, value in fields)
    return f"SecurityTetraplet {{ {shown} }}"
