"""A node's door, opened to light clients: the `door.*` calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from overlay.errors import Refusal
from registry.client.node_api import LocalNode
from registry.errors import RegistryError
from registry.model.values import decode_key, decode_key_or_tombstone, decode_metadata, decode_state, encode
from registry.protocol.messages import (
    NODE_COUNTERSIGN,
    NODE_EXPLAIN,
    NODE_NEIGHBOURS,
    NODE_PEER_INFOS,
    NODE_PROGRESS,
    NODE_READ,
    NODE_SERVICE,
    NODE_STATUS,
    NODE_UPKEEP,
    NODE_WRITE,
    Item,
    Name,
    NodeCountersignBody,
    NodeReadBody,
    NodeServiceBody,
    NodeWriteBody,
    ReadAnswer,
    StatePage,
    build,
    parse,
)
from registry.protocol.network import Network

Serve = Callable[[str, object], Awaitable[object]]


def serve_node_api(network: Network, node_api: LocalNode) -> None:
    """Serves `node_api` to whoever calls; quotas per caller are those of the calls below."""

    async def write(caller: str, body: object) -> object:  # noqa: ARG001 - the signatures count
        request = parse(body, NodeWriteBody)
        item = Item(
            decode_key_or_tombstone(request.key_or_tombstone), decode_state(request.state) if request.state else None
        )
        return build(await node_api.write(item, factor=request.factor, timeout=request.timeout))

    async def read(caller: str, body: object) -> object:  # noqa: ARG001 - anyone may read
        request = parse(body, NodeReadBody)
        outcome = await node_api.read(
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
        request = parse(body, NodeCountersignBody)
        key, metadata = decode_key(request.key), decode_metadata(request.metadata)
        return encode(await node_api.host(key, metadata, timeout=request.timeout))

    async def neighbours(caller: str, body: object) -> object:  # noqa: ARG001
        return await node_api.neighbours(parse(body, Name), timeout=0)

    async def meeting(caller: str, body: object) -> object:  # noqa: ARG001
        return [build(point) for point in await node_api.peer_infos(parse(body, Name), timeout=0)]

    async def progress(caller: str, body: object) -> object:  # noqa: ARG001
        outcome = await node_api.progress(parse(body, Name), timeout=0)
        return build(outcome) if outcome else None

    async def status(caller: str, body: object) -> object:  # noqa: ARG001
        return _builtins(await node_api.status(timeout=0))

    async def explain(caller: str, body: object) -> object:  # noqa: ARG001
        return [build(event) for event in await node_api.explain(parse(body, Name), timeout=0)]

    async def upkeep(caller: str, body: object) -> object:
        return _builtins(await node_api.run_schedule(parse(body, Name), timeout=0, caller=caller))

    async def service(caller: str, body: object) -> object:
        request = parse(body, NodeServiceBody)
        return _builtins(await node_api.service(request.function, request.arguments, timeout=0, caller=caller))

    for method, serve in (
        (NODE_WRITE, write),
        (NODE_READ, read),
        (NODE_COUNTERSIGN, host),
        (NODE_NEIGHBOURS, neighbours),
        (NODE_PEER_INFOS, meeting),
        (NODE_PROGRESS, progress),
        (NODE_STATUS, status),
        (NODE_SERVICE, service),
        (NODE_EXPLAIN, explain),
        (NODE_UPKEEP, upkeep),
    ):
        network.serve(method, _refusing(serve))


def _refusing(serve: Serve) -> Serve:
    async def guarded(caller: str, body: object) -> object:
        try:
            return await serve(caller, body)
        except RegistryError as error:
            raise Refusal(error.code, str(error)) from error

    return guarded


def _builtins(value: object) -> Any:
    return msgspec.to_builtins(value, builtin_types=(bytes,))
