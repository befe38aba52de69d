"""A node's door, opened to light clients: the `door.*` calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from overlay.errors import Refusal
from registry.door import LocalDoor
from registry.errors import InvalidValue, RegistryError
from registry.messages import (
    DOOR_EXPLAIN,
    DOOR_HOST,
    DOOR_MEETING,
    DOOR_NEIGHBOURS,
    DOOR_PROGRESS,
    DOOR_READ,
    DOOR_SERVICE,
    DOOR_STATUS,
    DOOR_UPKEEP,
    DOOR_WRITE,
    DoorHostBody,
    DoorReadBody,
    DoorServiceBody,
    DoorWriteBody,
    Item,
    Name,
    ReadAnswer,
    StatePage,
    build,
    parse,
)
from registry.network import Network
from registry.values import decode_anchor, decode_key, decode_metadata, decode_state, encode

Serve = Callable[[str, object], Awaitable[object]]


def open_doorway(network: Network, door: LocalDoor) -> None:
    """Serves `door` to whoever calls; quotas per caller are those of the calls below."""

    async def write(caller: str, body: object) -> object:  # noqa: ARG001 - the signatures count
        request = parse(body, DoorWriteBody)
        item = Item(decode_anchor(request.anchor), decode_state(request.state) if request.state else None)
        return build(await door.write(item, factor=request.factor, timeout=request.timeout))

    async def read(caller: str, body: object) -> object:  # noqa: ARG001 - anyone may read
        request = parse(body, DoorReadBody)
        outcome = await door.read(
            request.key_id, ack=request.ack, timeout=request.timeout, key_suffices=request.key_suffices
        )
        answer = ReadAnswer(
            answered=outcome.answered,
            page=StatePage.of(outcome.resource, request.after),
            errors=tuple(outcome.errors),
            timed_out=outcome.timed_out,
        )
        return build(answer)

    async def host(caller: str, body: object) -> object:  # noqa: ARG001 - the issuer's signature counts
        request = parse(body, DoorHostBody)
        key, metadata = decode_key(request.key), decode_metadata(request.metadata)
        return encode(await door.host(key, metadata, timeout=request.timeout))

    async def neighbours(caller: str, body: object) -> object:  # noqa: ARG001
        return await door.neighbours(parse(body, Name), timeout=0)

    async def meeting(caller: str, body: object) -> object:  # noqa: ARG001
        return [build(point) for point in await door.meeting_points(parse(body, Name), timeout=0)]

    async def progress(caller: str, body: object) -> object:  # noqa: ARG001
        outcome = await door.progress(parse(body, Name), timeout=0)
        return build(outcome) if outcome else None

    async def status(caller: str, body: object) -> object:  # noqa: ARG001
        return _builtins(await door.status(timeout=0))

    async def explain(caller: str, body: object) -> object:  # noqa: ARG001
        return [build(event) for event in await door.explain(parse(body, Name), timeout=0)]

    async def upkeep(caller: str, body: object) -> object:
        return _builtins(await door.run_schedule(parse(body, Name), timeout=0, caller=caller))

    async def service(caller: str, body: object) -> object:
        request = parse(body, DoorServiceBody)
        return _builtins(await door.service(request.function, request.arguments, timeout=0, caller=caller))

    for method, serve in (
        (DOOR_WRITE, write),
        (DOOR_READ, read),
        (DOOR_HOST, host),
        (DOOR_NEIGHBOURS, neighbours),
        (DOOR_MEETING, meeting),
        (DOOR_PROGRESS, progress),
        (DOOR_STATUS, status),
        (DOOR_SERVICE, service),
        (DOOR_EXPLAIN, explain),
        (DOOR_UPKEEP, upkeep),
    ):
        network.serve(method, _refusing(serve))


def _refusing(serve: Serve) -> Serve:
    async def guarded(caller: str, body: object) -> object:
        try:
            return await serve(caller, body)
        except InvalidValue as error:
            raise Refusal("invalid", str(error)) from error
        except RegistryError as error:
            raise Refusal("refused", str(error)) from error

    return guarded


def _builtins(value: object) -> Any:
    return msgspec.to_builtins(value, builtin_types=(bytes,))
