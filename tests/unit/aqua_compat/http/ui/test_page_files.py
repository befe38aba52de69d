"""The page's files go out as browsers need them, and nothing else does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aqua_compat.http.message import AccessLevel, HttpRequest, path_and_query
from aqua_compat.http.problems import Problem
from aqua_compat.http.tokens import Tokens
from aqua_compat.http.ui.page_files import page_files, page_reply
from aqua_compat.settings import HttpSettings
from tests.paths import ROOT
from tests.unit.aqua_compat.http.running import running_server

STATIC = ROOT / "aqua_compat/http/ui/static"
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def asked(target: str, method: str = "GET", **headers: str) -> HttpRequest:
    path, query = path_and_query(target)
    return HttpRequest(method, path, query, {name.replace("_", "-"): value for name, value in headers.items()}, b"")


def policy_in(headers: dict[str, str]) -> dict[str, str]:
    directives = (each.strip().partition(" ") for each in headers["Content-Security-Policy"].split(";"))
    return {name: value for name, _, value in directives}


@pytest.mark.parametrize("name", sorted(path.name for path in STATIC.iterdir()))
def test_each_file_has_its_type_and_the_policy(name: str) -> None:
    reply = page_reply(asked(f"/ui/{name}"))
    headers = dict(reply.headers)
    assert (reply.status, reply.body) == (200, (STATIC / name).read_bytes())
    assert headers["Content-Type"].split(";")[0] == TYPES[name.rpartition(".")[2]]
    policy = policy_in(headers)
    assert policy["default-src"] == "'none'"
    for directive in ("script-src", "style-src", "img-src", "connect-src"):
        assert policy[directive] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert set(" ".join(policy.values()).split()) <= {"'self'", "'none'", "'script'"}


def test_what_a_browser_has_it_needn_t_load_again() -> None:
    first = page_reply(asked("/ui/"))
    tag = dict(first.headers)["ETag"]
    assert page_reply(asked("/ui/index.html")).body == first.body
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = page_reply(asked("/ui/", if_none_match=known))
        assert (again.status, again.body, dict(again.headers)["ETag"]) == (304, b"", tag)
    for unknown in ('"other"', tag[1:-1], ""):
        assert page_reply(asked("/ui/", if_none_match=unknown)).status == 200
    assert len({file.tag for file in page_files().values()}) == len(page_files())


def test_the_folder_alone_leads_to_the_page() -> None:
    reply = page_reply(asked("/ui"))
    assert (reply.status, dict(reply.headers)["Location"]) == (308, "/ui/")


@pytest.mark.parametrize(
    "target",
    [
        "/ui/../settings.py", "/ui/%2e%2e/settings.py", "/ui/..%2f..%2fsettings.py", "/ui/%2fetc%2fpasswd",
        "/ui//index.html",
        "/ui/./main.js", "/ui/static/main.js", "/ui/main.js/", "/ui/main.js%00.html", "/ui/main.js%00", "/ui/MAIN.JS",
        "/ui/page_files.py", "/ui/__init__.py", "/ui/%5c..%5csettings.py", "/ui/nothing.html", "/ui/ui/",
    ],
)  # fmt: skip
def test_no_path_leads_elsewhere(target: str) -> None:
    with pytest.raises(Problem) as raised:
        page_reply(asked(target))
    assert raised.value.status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_it_is_only_read(method: str) -> None:
    with pytest.raises(Problem) as raised:
        page_reply(asked("/ui/", method))
    assert (raised.value.status, dict(raised.value.all_headers())["Allow"]) == (405, "GET, HEAD")


def test_the_page_needs_nothing_from_elsewhere_and_makes_no_markup_of_texts() -> None:
    """What the policy would stop in a browser isn't even there; and every file that one names is there."""
    for path in STATIC.iterdir():
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"\b(https?|wss?):?//|@import|url\(", text.replace("://${", "")), path.name
        assert not re.search(r"\b(innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval|Function\()", text), (
            path.name
        )
        for named in re.findall(r'(?:from|src=|href=)\s*"\.?/?([\w.-]+\.(?:js|css|svg))"', text):
            assert (STATIC / named).exists(), (path.name, named)
    page = (STATIC / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", page)
    made = set(re.findall(r'id="([\w-]+)"', page))
    for path in STATIC.glob("*.js"):
        asked_for = set(re.findall(r'\bat\("([\w-]+)"\)', path.read_text()))
        assert asked_for <= made | {"resource-facts", "keepers-body", "records-body"}, path.name


async def test_a_node_serves_it_without_a_token_and_what_it_shows_with_one(tmp_path: Path) -> None:
    token = Tokens(tmp_path).create("reader", AccessLevel.READ, 1)
    async with running_server(tmp_path, HttpSettings(listen="127.0.0.1:0")) as running:
        page = await running.ask("GET", "/ui/")
        assert (page.status, page.body) == (200, (STATIC / "index.html").read_bytes())
        assert "default-src 'none'; script-src 'self'" in page.headers["content-security-policy"]
        assert page.headers["cache-control"] == "no-cache"
        assert page.headers["x-content-type-options"] == "nosniff"
        linked = await running.ask("GET", "/ui/main.js", sec_fetch_site="cross-site")
        assert linked.status == 200
        head = await running.ask("HEAD", "/ui/main.js")
        assert (head.status, head.body, head.headers["etag"]) == (200, b"", linked.headers["etag"])
        known = await running.ask("GET", "/ui/main.js", if_none_match=linked.headers["etag"])
        assert (known.status, known.body, "content-length" in known.headers) == (304, b"", False)
        assert (await running.ask("GET", "/ui/", host="evil.example")).status == 421
        assert (await running.ask("GET", "/ui/../ui/")).status == 404
        assert (await running.ask("POST", "/ui/", {})).status == 405

        assert (await running.ask("GET", "/v1/aqua/network")).status == 401
        allowed = {"authorization": f"Bearer {token}"}
        answered = await running.ask("GET", "/v1/aqua/network", **allowed)
        assert answered.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        view = answered.result
        own = running.node.peer.peer_id
        assert view["peer_id"] == own
        assert 0 <= view["position"] < 1
        assert (view["members"], view["resource"]) == ([], None)
        assert view["owners"] == [{"name": "me", "peer_id": own}]
        chosen = (await running.ask("GET", "/v1/aqua/network?resource=web@me", **allowed)).result["resource"]
        assert chosen["keepers"] == [own]
        assert 0 <= chosen["position"] < 1
        assert (await running.ask("GET", "/v1/aqua/network?resource=web", **allowed)).status == 400
