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


class Step:
    """One thing that the demo does, how long it took, and what came of it."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.outcome: list[str] = []
        self.duration: float | None = None
        self.failed = False

    def says(self, *lines: str) -> None:
        """What came of it, a line each."""
        self.outcome.extend(map(one_line, lines) if lines else ["no services"])


class Display:
    """Steps one after the other; `step` says when one begins and when it ended."""

    def __init__(self, nodes: Sequence[NodeProcess]) -> None:
        self._nodes = nodes
        self._began = time.monotonic()
        self.steps: list[Step] = []

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        step = Step(title)
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

    def show_end(self, step: Step) -> None:
        """A step is over."""
        click.echo(f"[{len(self.steps)}] {step.title}: {_result(step)}")
        for line in step.outcome:
            click.echo(f"      {line}")

    def ends(self) -> None:
        """All went well."""
        click.echo(f"Done in {time.monotonic() - self._began:.1f} s. Next: the tour in README.md.")


class LiveDisplay(Display):
    """The picture on a terminal, redrawn several times a second."""

    def show_end(self, step: Step) -> None:
        del step

    def ends(self) -> None:
        """The picture stays and its last line is printed when it closes."""

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


def _result(step: Step) -> str:
    return f"{'failed' if step.failed else 'done'} in {step.duration or 0:.2f} s"
