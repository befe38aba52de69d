"""`aqua-registry upkeep`: runs one of a node's schedules now."""

from __future__ import annotations

import click
import msgspec

from aqua_compat.cli.failures import one_line
from aqua_compat.cli.options import json_option, network_options
from aqua_compat.cli.output import json_line
from aqua_compat.cli.session import CommandSession


@click.command(short_help="Run one of a node's schedules now.")
@click.argument("schedule")
@json_option
@network_options(acts=True, as_node=False)
def upkeep(session: CommandSession, schedule: str, as_json: bool) -> None:
    """Run SCHEDULE of the node now: clearExpired_86400, replicate_3600 or renew_43200.

    Your key must be among the node's `operators`; `aqua-registry key show` prints its peer id.
    """
    done = session.run(lambda client: client.registry.run_schedule(schedule, timeout=session.timeout))
    if as_json:
        click.echo(json_line(msgspec.structs.asdict(done)))
    else:
        click.echo(f"{one_line(done.name)}: {one_line(done.did)} in {done.duration:g} s")
