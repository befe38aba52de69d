"""What the documents name is there, and what the code says of the documents is true.

Nothing here knows a module or a section by name: renaming one fails here until whoever tells of it is changed as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from aqua_compat.cli.config import leaves
from aqua_compat.settings import Settings
from registry.service.functions import FUNCTIONS
from registry.upkeep.schedules import CLEAR_EXPIRED, RENEW, REPLICATE
from tests.paths import ROOT

PACKAGES: Final = ("overlay", "registry", "aqua_compat")
FOLDERS: Final = (*PACKAGES, "tests", "benchmarks", "examples", "docs")
SKIPPED: Final = {"node_modules", "compiled", "__pycache__"}

FILE_NAME: Final = re.compile(r"(?<![\w./@-])(?:[\w-]+/)*[\w-]+\.(?:py|mjs|md|toml)\b")
FOLDER_NAME: Final = re.compile(r"`((?:[\w-]+/)+)`")
DOTTED: Final = re.compile(rf"`((?:{'|'.join(PACKAGES)})(?:\.(?!py\b)\w+)+)`")
IMPORT: Final = re.compile(r"^\s*from ((?:overlay|registry|aqua_compat)[\w.]*) import ([\w, ]+)", re.MULTILINE)
LINK: Final = re.compile(r"\[[^\]]*\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")
SECTION: Final = re.compile(r"\b(docs/[\w-]+\.md), (?=[A-Z]|original's)")
NUMBERED: Final = re.compile(r"original's faults? ([\d, and]*\d)")

ELSEWHERE: Final = {
    "a document by its name in capitals": re.compile(
        r"\b[D]ESIGN\b|\b(?:OVERLAY|PERMISSION|PRESENCE|LAYOUT|STYLE)\.md"
    ),
    "an unnamed reference": re.compile(r"\([r]eference:|\bin the [r]eference\b"),
    "a fault of the original by a bare number": re.compile(r"(?<!original's )\b[f]aults? \d"),
}
"""References that no reader of this repository can follow. Letters in brackets keep this file from matching itself."""


@cache
def files() -> dict[Path, str]:
    """Every text of this repository by its path from the top; the changelog tells of what isn't there any more."""
    found = [path for pattern in ("*.md", "*.toml") for path in ROOT.glob(pattern)]
    for folder in FOLDERS:
        for suffix in ("py", "md", "mjs", "aqua"):
            found += (ROOT / folder).rglob(f"*.{suffix}")
    relative = [path.relative_to(ROOT) for path in found]
    return {path: (ROOT / path).read_text() for path in sorted(relative) if not SKIPPED.intersection(path.parts)}


def documents() -> dict[Path, str]:
    """What is written for readers."""
    return {path: text for path, text in files().items() if path.suffix == ".md" and path.name != "CHANGELOG.md"}


def code() -> dict[Path, str]:
    return {path: text for path, text in files().items() if path.suffix != ".md"}


def flowing(text: str) -> str:
    """A text without line breaks and the marks of comments, so that what was wrapped is in one piece."""
    return re.sub(r"\s*\n\s*(?:(?:#:?|//|\*)\s+)?", " ", text)


def headings(path: Path) -> list[str]:
    """Those of a document, outside of its examples."""
    text = re.sub(r"^ *```.*?^ *```", "", files()[path], flags=re.MULTILINE | re.DOTALL)
    return [title.replace("`", "").strip() for title in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)]


def anchor(heading: str) -> str:
    """How a link names a heading, as forges make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@cache
def faults_of_the_original() -> frozenset[int]:
    """The numbers in the table of docs/design.md."""
    _, _, table = files()[Path("docs/design.md")].partition("## Faults of the original\n")
    return frozenset(int(number) for number in re.findall(r"^\| (\d+) \|", table, flags=re.MULTILINE))


@cache
def texts_in_code() -> frozenset[str]:
    """Short text literals of the packages, such as the names of messages."""
    sources = [text for path, text in files().items() if path.suffix == ".py" and path.parts[0] in PACKAGES]
    return frozenset(literal for text in sources for literal in re.findall(r'"([\w./-]{1,64})"', text))


@cache
def settings() -> frozenset[str]:
    """Every setting and every section of settings by its dotted path."""
    return frozenset(".".join(path[:length]) for path, _ in leaves(Settings) for length in range(1, len(path) + 1))


def names_a_file(name: str) -> bool:
    """Whether something has this path, or one that ends so: documents leave the room out where it is clear."""
    parts = Path(name).parts
    if len(parts) > 1 and parts[0] in FOLDERS:
        return (ROOT / name).exists() or name in texts_in_code()
    return parts in ends_of_paths() or (ROOT / name).exists()


@cache
def ends_of_paths() -> frozenset[tuple[str, ...]]:
    """The last parts of every file's and folder's path, from one part to all."""
    paths = {path.parts for file in files() for path in (file, *file.parents)}
    return frozenset(parts[start:] for parts in paths for start in range(len(parts)))


def names_something(dotted: str) -> bool:
    """Whether a dotted name is a module, what a module has, a setting, a message, or a function of the service."""
    if dotted in settings() or dotted in texts_in_code():
        return True
    parts = dotted.split(".")
    if parts[0] == "registry" and parts[1:] and parts[1] in FUNCTIONS and len(parts) == 2:
        return True
    for length in range(len(parts), 0, -1):
        module = Path(*parts[:length])
        for path in (module.with_suffix(".py"), module / "__init__.py"):
            if path in files():
                return all(re.search(rf"\b{name}\b", files()[path]) for name in parts[length:])
        if (ROOT / module).is_dir() and length == len(parts):
            return True
    return False


def missing_in_documents() -> Iterator[str]:
    for path, text in documents().items():
        for name in {*FILE_NAME.findall(text), *FOLDER_NAME.findall(text)}:
            if not names_a_file(name) and not (ROOT / path.parent / name).exists():
                yield f"{path}: {name}"


def missing_modules_in_documents() -> Iterator[str]:
    for path, text in documents().items():
        for module, names in IMPORT.findall(text):
            for name in names.split(","):
                if not names_something(f"{module}.{name.strip()}"):
                    yield f"{path}: from {module} import {name.strip()}"


def missing_in_code() -> Iterator[str]:
    for path, text in code().items():
        for name in set(FILE_NAME.findall(flowing(text))):
            if name.split("/")[0] in FOLDERS and "/" in name and not names_a_file(name):
                yield f"{path}: {name}"


def missing_names() -> Iterator[str]:
    for path, text in files().items():
        if path.name != "CHANGELOG.md":
            for dotted in set(DOTTED.findall(flowing(text))):
                if not names_something(dotted):
                    yield f"{path}: {dotted}"


def missing_sections() -> Iterator[str]:
    for path, text in files().items():
        whole = flowing(text)
        for match in SECTION.finditer(whole):
            document, rest = Path(match[1]), whole[match.end() :]
            if document not in files():
                yield f"{path}: {document}"
            elif not rest.startswith(("original's", *headings(document))):
                yield f"{path}: {document}, {rest[:40]}"
        for numbers in NUMBERED.findall(whole):
            for number in re.findall(r"\d+", numbers):
                if int(number) not in faults_of_the_original():
                    yield f"{path}: original's fault {number}"


def broken_links() -> Iterator[str]:
    for path, text in files().items():
        if path.suffix != ".md":
            continue
        for target, wanted in LINK.findall(text):
            found = (ROOT / path.parent / target).resolve() if target else ROOT / path
            if not found.exists():
                yield f"{path}: {target}"
            elif wanted and wanted not in map(anchor, headings(found.relative_to(ROOT))):
                yield f"{path}: {target}#{wanted}"


def references_elsewhere() -> Iterator[str]:
    for path, text in files().items():
        whole = flowing(text)
        for what, pattern in ELSEWHERE.items():
            for match in pattern.finditer(whole):
                yield f"{path}: {what}: ...{whole[max(match.start() - 30, 0) : match.end() + 20]}..."


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(missing_in_documents, id="files and folders that documents name exist"),
        pytest.param(missing_modules_in_documents, id="what examples in documents import exists"),
        pytest.param(missing_in_code, id="files that code names exist"),
        pytest.param(missing_names, id="modules, settings and messages that are named by dots exist"),
        pytest.param(missing_sections, id="sections that code and documents point to exist"),
        pytest.param(broken_links, id="links lead somewhere"),
        pytest.param(references_elsewhere, id="nothing points outside of the repository"),
    ],
)
def test_nothing_dangles(wrong) -> None:
    found = sorted(wrong())
    assert not found, "\n" + "\n".join(found)


def test_the_faults_of_the_original_are_numbered_without_a_gap() -> None:
    assert faults_of_the_original() == frozenset(range(1, len(faults_of_the_original()) + 1))


def test_what_is_told_of_the_originals_scheduled_scripts_is_their_names_and_those_of_schedules() -> None:
    [row] = re.findall(r"^\| `registry-scheduled-scripts\.aqua` .*$", files()[Path("docs/aqua.md")], flags=re.MULTILINE)
    interface = json.loads((ROOT / "tests" / "data" / "aqua-interface.json").read_text())
    scripts = set(interface["functions"]["registry-scheduled-scripts"])
    assert set(re.findall(r"`(\w+_\d+)`", row)) == scripts == {CLEAR_EXPIRED, REPLICATE, RENEW}


def test_each_workaround_has_its_line_in_the_design() -> None:
    modules = {path.name for path in files() if path.match("overlay/libp2p/workarounds/*.py")} - {"__init__.py"}
    _, _, table = files()[Path("docs/design.md")].partition("## Faults of py-libp2p\n")
    assert set(re.findall(r"^\| .* \| `(\w+\.py)` \|$", table, flags=re.MULTILINE)) == modules
