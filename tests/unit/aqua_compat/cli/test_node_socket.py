"""What commands refuse before they ask the node of this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from aqua_compat.cli.failures import Misuse
from aqua_compat.cli.node_socket import NodeSocket

NOT_UTF8 = b"web\xff".decode(errors="surrogateescape")  # as Python has an argument


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (lambda node: node.get("resources", "", "records"), "an argument is empty; an id or a name is wanted"),
        (lambda node: next(node.events("resources", "", "watch")), "an argument is empty"),
        (lambda node: node.get("resources", NOT_UTF8, "records"), r"'web\\udcff' isn't valid UTF-8"),
        (lambda node: node.get("resources", "id", "records", tag=(NOT_UTF8,)), "isn't valid UTF-8"),
        (lambda node: node.post("resources", "id", "records", value=NOT_UTF8), "isn't valid UTF-8"),
    ],
)
def test_what_no_node_could_answer_is_misuse(ask: Callable[[NodeSocket], object], error: str, tmp_path: Path) -> None:
    with pytest.raises(Misuse, match=error):
        ask(NodeSocket(tmp_path, 1.0))
