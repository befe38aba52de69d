"""What the demo shows: on a terminal a live picture of nodes and steps, elsewhere plain lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click
from rich.console import Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from aqua_compat.cli.failures import one_line
from aqua_compat.cli.node_process import NodeProcess


class DemoStep:
    """One thing that the demo does, how long it took, and what came of it."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.outcome: list[str] = []
        self.duration: float | None = None
        self.failed = False

    def says(self, *lines: str) -> None:
        """Adds lines that tell what came of the step."""
        self.outcome.extend(map(one_line, lines) if lines else ["no services"])


class Display:
    """Shows steps one after the other as lines of text."""

    def __init__(self, nodes: Sequence[NodeProcess]) -> None:
        self._nodes = nodes
        self._began = time.monotonic()
        self.steps: list[DemoStep] = []

    @contextmanager
    def step(self, title: str) -> Iterator[DemoStep]:
        """Shows what the block does as a step."""
        step = DemoStep(title)
        self.steps.append(step)
        began = time.monotonic()
        try:
            yield step
        except BaseException:
            step.failed = True
            raise
        finally:
            step.duration = time.monotonic() - began
            self.show_end(step)

    def show_end(self, step: DemoStep) -> None:
        """Shows a step that ended."""
        click.echo(f"[{len(self.steps)}] {step.title}: {_result(step)}")
        for line in step.outcome:
            click.echo(f"      {line}")

    def ends(self) -> None:
        """Shows that all went well."""
        click.echo(f"Done in {time.monotonic() - self._began:.1f} s. Next: the tour in README.md.")


class LiveDisplay(Display):
    """Shows nodes and steps on a terminal, drawn anew several times a second."""

    def show_end(self, step: DemoStep) -> None:
        """Nothing: the next picture shows it."""
        del step

    def ends(self) -> None:
        """Nothing: the last line is printed when the picture is closed."""

    def __rich__(self) -> Group:
        nodes = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for column in ("", "process", "peer id", ""):
            nodes.add_column(column, no_wrap=True)
        for number, node in enumerate(self._nodes, 1):
            state, style = _state(node)
            peer_id = node.peer_id if node.addresses else ""
            nodes.add_row(f"node {number}", str(node.process_id or ""), peer_id, Text(state, style))
        return Group(Text("A network of five nodes", "bold"), nodes, Text(""), *self._lines())

    def _lines(self) -> Iterator[Text | Spinner]:
        for step in self.steps:
            if step.duration is None:
                yield Spinner("dots", Text(step.title))
                continue
            mark, style = ("\N{MULTIPLICATION SIGN}", "red") if step.failed else ("\N{CHECK MARK}", "green")
            yield Text.assemble((mark, style), " ", step.title, (f"  {step.duration:.2f} s", "dim"))
            yield from (Text(f"    {line}", "cyan", overflow="ellipsis", no_wrap=True) for line in step.outcome)


@contextmanager
def open_display(nodes: Sequence[NodeProcess]) -> Iterator[Display]:
    """The display that suits stdout."""
    if not sys.stdout.isatty():
        yield Display(nodes)
        return
    display = LiveDisplay(nodes)
    with Live(display, refresh_per_second=8, redirect_stderr=False, redirect_stdout=False):
        yield display
    Display.ends(display)


def _state(node: NodeProcess) -> tuple[str, str]:
    if node.alive:
        return ("ready", "green") if node.addresses else ("starting", "yellow")
    return ("gone", "red") if node.addresses else ("", "dim")


def _result(step: DemoStep) -> str:
    return f"{'failed' if step.failed else 'done'} in {step.duration or 0:.2f} s"
