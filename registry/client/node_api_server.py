"""Serves a node's API to light clients: every operation of `registry.client.node_operations`."""

from __future__ import annotations

from typing import Any

import msgspec

from overlay.errors import Refusal
from registry.client.local_node import LocalNode
from registry.client.node_operations import OPERATIONS, CallBody, Caller, Operation
from registry.errors import RegistryError
from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import parse
from registry.protocol.network import Handler, Network


def serve_node_api(network: Network, node: LocalNode) -> None:
    """Serves `node` to whoever calls; quotas per caller are those of the calls below."""
    for operation in OPERATIONS:
        network.serve(operation.name, _handler(node, operation))


def _handler(node: LocalNode, operation: Operation[Any, Any]) -> Handler:
    async def answer(caller: str, body: object) -> object:
        try:
            call = parse(body, CallBody)
            request = parse(call.request, operation.request)
            reply = await operation.answer(node, request, Caller(caller, call.timeout))
        except RegistryError as error:
            info = ErrorInfo.of(error)
            raise Refusal(info.code, info.text, error.retry_after) from error
        return msgspec.to_builtins(reply, builtin_types=(bytes,))

    return answer
