"""`aqua-registry run`: any function of the API by its original name, as the original's `fluence run` called it."""

from __future__ import annotations

import json
from collections.abc import Awaitable
from typing import TYPE_CHECKING, cast

import click

from aqua_compat.cli.failures import Failure, Misuse
from aqua_compat.cli.options import network_options
from aqua_compat.cli.output import print_json
from aqua_compat.cli.session import CommandSession

if TYPE_CHECKING:
    from aqua_compat.api.client import AquaClient

# Commands import what they need when they run: `--help` is to answer at once.
# ruff: noqa: PLC0415


@click.command(short_help="Call a function of the original's API.")
@click.option("-f", "--func", required=True, metavar="CALL", help="Call, such as 'resolveResource(id, 1)'.")
@click.option("--data", default="{}", metavar="JSON", help="Values of the names in the call, a JSON object.")
@click.option("--quiet", is_flag=True, help="Print the result and nothing else, whatever --log-level says.")
@click.option("--particle-id", is_flag=True, help="As the original's option: tells on stderr that no particle is sent.")
@network_options(writes=True, registers=True, as_node=False)
@click.pass_context
def run(context: click.Context, session: CommandSession, func: str, data: str, quiet: bool, particle_id: bool) -> None:
    """Call a function of the original's API and print its result as JSON.

    Arguments are literals ("text", 1, true, nil, []) or names with a value in --data. Several results are printed as
    one array, an absent option as null, bytes as arrays of numbers.

    \b
    aqua-registry run -f 'createResource("echo")'
    aqua-registry run -f 'resolveResource(id, 1)' --data '{"id": "..."}'

    Without --relay they go through the node on this machine. The exit code is 1 when the result tells a failure; it is
    printed all the same.
    """
    from aqua_compat.cli.expression import ExpressionError, parse_call
    from aqua_compat.schema.interface import FUNCTIONS
    from aqua_compat.schema.json_codec import from_json

    try:
        call = parse_call(func, _variables(data))
    except ExpressionError as error:
        raise Misuse(f"-f: {error}") from None
    if call.function not in FUNCTIONS:
        raise Misuse(f"there is no function {call.function}; there are {', '.join(FUNCTIONS)}")
    parameters = FUNCTIONS[call.function]
    if len(call.arguments) != len(parameters):
        names = ", ".join(f"{name}: {aqua_type}" for name, aqua_type in parameters)
        raise Misuse(f"{call.function} takes {len(parameters)} arguments ({names}), not {len(call.arguments)}")
    try:
        arguments = [
            from_json(aqua_type, name, value)
            for (name, aqua_type), value in zip(parameters, call.arguments, strict=True)
        ]
    except (TypeError, ValueError) as error:
        raise Misuse(f"{call.function}: {error}") from None

    if quiet:
        session.log_errors_only()
    elif particle_id:
        click.echo("no particle: the node's functions are called natively", err=True)

    async def act(client: AquaClient) -> object:
        return await cast("Awaitable[object]", getattr(client, call.function)(*arguments))

    result = session.run(act)
    print_json(result)
    if _tells_failure(result):
        if quiet:
            context.exit(1)
        raise Failure(f"{call.function} failed; its result says why")


def _variables(data: str) -> dict[str, object]:
    try:
        variables = json.loads(data)
    except json.JSONDecodeError as error:
        raise Misuse(f"--data isn't JSON: {error}") from None
    if not isinstance(variables, dict):
        raise Misuse('--data must be an object with the values of names, such as \'{"id": "..."}\'')
    return variables


def _tells_failure(result: object) -> bool:
    if isinstance(result, tuple):
        return result[0] is None or result[0] is False
    return getattr(result, "success", True) is False
