"""Where in a file each of its services begins, so that a fault is told with its line.

Neither reader tells that: the text is looked through once more. Where as many services aren't found there as were read,
no line is told: none is better than a wrong one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

_HEAD: Final = re.compile(r"\s*\[\[\s*service\s*\]\]\s*(#.*)?")
_SERVICE: Final = re.compile(r"service ([0-9]{1,6})\b")
_PIECE: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:]|\n')
_KEYS: Final = ("services", "service")
"""In the order in which Consul's are counted; ours has `service` alone."""


class ServicePlaces(NamedTuple):
    """A file, or what else defines services, and the lines where they begin; none where these can't be told."""

    name: str
    lines: tuple[int, ...] = ()

    @classmethod
    def of(cls, name: str, text: str, content: object, *, is_toml: bool) -> ServicePlaces:
        """Those of a file whose text was read as `content`."""
        if not isinstance(content, dict):
            return cls(name)
        lines = tuple(_lines_of_toml(text) if is_toml else _lines_of_json(text))
        return cls(name, lines if len(lines) == _count(content) else ())

    def at(self, number: int) -> str:
        """The file, and the line where its service of that number begins, from 1 on."""
        return f"{self.name}, line {self.lines[number - 1]}" if 0 < number <= len(self.lines) else self.name

    def told(self, error: str) -> str:
        """An error with the place before it: that of the service of which it tells as `service 2`."""
        found = _SERVICE.match(error)
        return f"{self.at(int(found[1])) if found else self.name}: {error}"


def _count(content: dict[str, Any]) -> int:
    found = (content.get(key, []) for key in _KEYS)
    return sum(len(each) if isinstance(each, list) else 1 for each in found)


def _lines_of_toml(text: str) -> Iterator[int]:
    return (number for number, line in enumerate(text.splitlines(), 1) if _HEAD.fullmatch(line))


def _lines_of_json(text: str) -> list[int]:
    """Where the objects begin that are under a key of `_KEYS`, or in a list there."""
    found: dict[str, list[int]] = {key: [] for key in _KEYS}
    key, word, line, opened = "", "", 1, ""
    for piece in _PIECE.findall(text):
        if piece == "\n":
            line += 1
        elif piece in "{[":
            if piece == "{" and key in found and opened in ("{", "{["):
                found[key].append(line)
            opened += piece
        elif piece in "}]":
            opened = opened[:-1]
        elif piece == ":":
            if opened == "{":
                key = json.loads(word)
                if key in found:
                    found[key] = []  # of two keys of one name the last one counts
        else:
            word = piece
    return [line for key in _KEYS for line in found[key]]
