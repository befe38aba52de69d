"""Serves the page's files: a fixed set that is read from the package once, so a path names one of them or nothing.

Rules:
1. Anybody who may connect gets them, without a token: they are the same on every node, and tell nothing. What they
   show, the browser asks of `/v1/aqua/`, as everybody does.
2. The page runs nothing and loads nothing but these files, asks nobody but its node, and can't be framed: its policy
   says so to the browser. With it, text can't become markup either (Trusted Types), whatever the network holds.
3. A browser asks each time whether a file changed (`no-cache`, `ETag`), so that the page is as new as the node.
"""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import PurePath
from typing import Final, NamedTuple

from aqua_compat.http.message import HttpReply, HttpRequest
from aqua_compat.http.problems import Problem

ROOT: Final = "ui"
"""The first part of the paths of the page."""
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)

_PAGE: Final = "index.html"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_ALLOWED: Final = ("GET", "HEAD")


class PageFile(NamedTuple):
    """A file as it is sent. `tag`: its ETag, with the quotes."""

    content: bytes
    media_type: str
    tag: str


@cache
def page_files() -> dict[str, PageFile]:
    """All files of the page, by their names."""
    found: dict[str, PageFile] = {}
    for entry in files("aqua_compat.http.ui").joinpath("static").iterdir():
        media_type = _TYPES.get(PurePath(entry.name).suffix)
        if media_type is not None:
            content = entry.read_bytes()
            found[entry.name] = PageFile(content, media_type, f'"{sha256(content).hexdigest()[:32]}"')
    return found


def is_of_page(request: HttpRequest) -> bool:
    """Whether a request is for the page, or for what would be one of its files."""
    return request.path[0] == ROOT


def page_reply(request: HttpRequest) -> HttpReply:
    """The answer to a request for the page. Raises Problem."""
    if request.method not in _ALLOWED:
        allowed = ", ".join(_ALLOWED)
        raise Problem(405, "method-unknown", f"here are: {allowed}", headers=[("Allow", allowed)])
    if request.path == (ROOT,):
        return HttpReply(308, [("Location", f"/{ROOT}/")], b"")
    name = request.path[1] if len(request.path) == 2 else ""
    found = page_files().get(_PAGE if request.path == (ROOT, "") else name)
    if found is None:
        raise Problem(404, "path-unknown", f"the page has no such file; it is at /{ROOT}/")
    headers = [("ETag", found.tag), ("Cache-Control", "no-cache")]
    if _is_known(found.tag, request.headers.get("if-none-match", "")):
        return HttpReply(304, headers, b"")
    headers += [
        ("Content-Type", found.media_type),
        ("Content-Security-Policy", POLICY),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Referrer-Policy", "no-referrer"),
    ]
    return HttpReply(200, headers, found.content)


def _is_known(tag: str, given: str) -> bool:
    """Whether the client's `If-None-Match` says that it has this version (RFC 9110, 13.1.2: weakly compared)."""
    known = [each.strip().removeprefix("W/") for each in given.split(",")]
    return tag in known or known == ["*"]
