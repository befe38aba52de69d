"""Options that several commands take."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aqua_compat.cli.failures import Misuse
from aqua_compat.cli.keys import DEFAULT_KEY
from aqua_compat.cli.logs import logging_options
from aqua_compat.cli.session import CommandSession

if TYPE_CHECKING:
    from registry.model.trusted_issuers import Trusted

# Commands import what they need when they run: `--help` is to answer at once.
# ruff: noqa: PLC0415


def network_options(
    *,
    writes: bool = False,
    acts: bool = False,
    counts: bool | None = None,
    registers: bool = False,
    as_node: bool = True,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Options of every command that uses the network; the command gets a CommandSession as its first argument.

    `acts`: the command does something in the key's name; all that write do. `counts`: it takes `--factor`, as all do by
    default that write. `registers`: it may show a certificate. `as_node`: through a node on this machine it acts in the
    node's name.
    """
    counts = writes if counts is None else counts
    in_whose_name = "Without --key, " + (
        "the command acts as the node's own key." if acts or writes else "it is the node that asks."
    )

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def run(
            *arguments: Any,
            relay: tuple[str, ...],
            key: str | None,
            timeout: float,
            join: Path | None,
            node: Path | None,
            log_level: str,
            log_format: str,
            factor: int | None = None,
            certificate: tuple[Path, ...] = (),
            config: Path | None = None,
            **options: Any,
        ) -> Any:
            if node is not None and relay:  # the one that is nearer to this command counts
                if _is_given("node") and _is_given("relay"):
                    raise Misuse("--node and --relay contradict each other; give one")
                relay, node = ((), node) if _is_given("node") else (relay, None)
            session = CommandSession(
                relay,
                key,
                timeout,
                factor,
                writes=writes,
                acts=acts or writes,
                join=join,
                certificates=certificate,
                config=config,
                node_folder=node,
                logs=(log_level, log_format),
            )
            return command(session, *arguments, **options)

        decorated: Callable[..., Any] = logging_options("error")(run)
        if registers:
            decorated = click.option(
                "--certificate",
                type=click.Path(path_type=Path),
                multiple=True,
                metavar="PATH",
                envvar="AQUA_REGISTRY_CERTIFICATE",
                help="File with a certificate to show where the resource's policy asks for one, or a folder of files"
                " *.cert. Repeatable. Those in the folder `certificates` of your data folder are used too.",
            )(decorated)
        if counts:
            decorated = click.option(
                "--factor",
                type=click.IntRange(1),
                metavar="N",
                help="Replicas that must have the write on disk before it counts as done.  [default: 1]",
            )(decorated)
        decorated = timeout_option(decorated)
        decorated = click.option(
            "-k",
            "--key",
            metavar="KEYNAME",
            envvar="AQUA_REGISTRY_KEY",
            help="Name of your key to act as; made on first use."
            + (f"  [default: {DEFAULT_KEY}]" if acts or writes else "  [default: a new one, for this command only]"),
        )(decorated)
        decorated = config_option(decorated)
        decorated = click.option(
            "--join",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE",
            envvar="AQUA_REGISTRY_JOIN",
            help="Token of a private network, as `aqua-registry network invite --client` prints it.",
        )(decorated)
        decorated = click.option(
            "--node",
            type=click.Path(file_okay=False, path_type=Path),
            metavar="PATH",
            envvar="AQUA_REGISTRY_NODE",
            help="Data folder of a node on this machine to act through, where no --relay is given. "
            + (in_whose_name if as_node else "The command is a client of that node, with a key of its own.")
            + "  [default: that of `aqua-registry node`, if it runs]",
        )(decorated)
        return click.option(
            "--relay",
            multiple=True,
            metavar="MULTIADDR",
            envvar="AQUA_REGISTRY_RELAY",
            help="Node to act through (.../p2p/ID). Repeat it for nodes to fail over to.",
        )(decorated)

    return add


class SecondsType(click.FloatRange):
    """Seconds that an operation may take."""

    def __init__(self) -> None:
        super().__init__(0.001, 3600)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number. Fails for `nan`, too, which no comparison finds."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is no number of seconds", param, ctx)
        return number


timeout_option = click.option(
    "--timeout",
    type=SecondsType(),
    metavar="SECONDS",
    default=6.0,
    show_default=True,
    envvar="AQUA_REGISTRY_TIMEOUT",
    help="Seconds for the whole operation.",
)


config_option = click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    envvar="AQUA_REGISTRY_CONFIG",
    help="TOML file with settings, of which `names` are used: the aliases of owners, for names such as web@acme.",
)


def _is_given(option: str) -> bool:
    return click.get_current_context().get_parameter_source(option) is click.core.ParameterSource.COMMANDLINE


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


def trust_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options `--trust` and `--trust-root`, which arrive as `trusted`, None without them."""

    @wraps(command)
    def run(*arguments: Any, trust: tuple[str, ...], trust_root: tuple[str, ...], **options: Any) -> Any:
        trusted: Trusted | None = None
        if trust or trust_root:
            from registry.model.trusted_issuers import Trusted, TrustRule

            trusted = Trusted(issuers=trust, roots=trust_root)
            try:
                TrustRule(trusted)
            except ValueError as error:
                raise Misuse(str(error)) from None
        return command(*arguments, trusted=trusted, **options)

    decorated = click.option(
        "--trust-root",
        multiple=True,
        metavar="PEER_ID",
        help="Show only what comes with a certificate of this peer, or is trusted otherwise. Repeatable.",
    )(run)
    return click.option(
        "--trust",
        multiple=True,
        metavar="PEER_ID",
        help="Show only what this peer registered, or is trusted otherwise. Repeatable.",
    )(decorated)


def key_option(text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option `--key` of commands that need no network, with this as its help."""
    return click.option(
        "-k",
        "--key",
        default=DEFAULT_KEY,
        show_default=True,
        metavar="KEYNAME",
        envvar="AQUA_REGISTRY_KEY",
        help=text,
    )
