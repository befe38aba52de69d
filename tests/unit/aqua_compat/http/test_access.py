"""Who may ask what: names, origins, tokens, and where a node may be reached at all."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
import trio

from aqua_compat.http.access import FAILURES, AddressGuard, check_may
from aqua_compat.http.listeners import Address, Misconfigured, address_in, check_exposure, is_own_user, socket_in
from aqua_compat.http.message import AccessLevel, HttpRequest, path_and_query
from aqua_compat.http.problems import Problem
from aqua_compat.http.server import judged_at
from aqua_compat.http.tokens import FILE, Tokens
from aqua_compat.settings import HttpSettings
from registry.errors import StorageError


def request(host: str = "127.0.0.1:8500", method: str = "GET", body: bytes = b"", **headers: str) -> HttpRequest:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpRequest(method, ("v1",), (), {"host": host, **named}, body)


class Guarded:
    """A guard whose time a test moves."""

    def __init__(self, folder: Path, *, is_loopback: bool = True) -> None:
        self.now = 0.0
        self.tokens = Tokens(folder)
        self.guard = AddressGuard(self.tokens, ("Node.Example",), is_loopback=is_loopback, now=lambda: self.now)

    def status(self, asked: HttpRequest, remote: str = "192.0.2.1") -> int:
        try:
            return self.guard.judged(asked, remote).grant
        except Problem as problem:
            return problem.status


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:8500", True),
        ("[::1]:8500", True),
        ("LOCALHOST:1", True),
        ("localhost.", True),
        ("192.0.2.7:8500", True),
        ("node.example:8500", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example:8500", False),
        ("127.0.0.1:8500@evil.example", False),
        ("0x7f000001", False),
        ("2130706433", False),
        ("", False),
        ("[::1", False),
        ("127.0.0.1:port", False),
    ],
)
def test_only_names_of_the_node_are_served(host: str, is_ours: bool, tmp_path: Path) -> None:
    assert Guarded(tmp_path).status(request(host)) == (AccessLevel.OPERATE if is_ours else 421)


@pytest.mark.parametrize(
    ("path", "is_public"),
    [
        (("healthz",), True),
        (("readyz",), True),
        (("ui",), True),
        (("ui", "page.js"), True),
        (("metrics",), False),
        (("v1", "aqua", "status"), False),
        (("healthz", "more"), False),
        (("",), False),
    ],
)
def test_probes_and_the_page_need_no_token_and_nothing_else_does(
    path: tuple[str, ...], is_public: bool, tmp_path: Path
) -> None:
    guard = Guarded(tmp_path, is_loopback=False).guard
    asked = request()._replace(path=path)
    if is_public:
        assert judged_at(guard, "192.0.2.1", asked).grant is AccessLevel.READ
    else:
        with pytest.raises(Problem, match="needs a token"):
            judged_at(guard, "192.0.2.1", asked)


def test_a_probe_may_name_no_host_and_nobody_else(tmp_path: Path) -> None:
    guard = Guarded(tmp_path).guard
    nameless = request()._replace(headers={})
    assert judged_at(guard, "192.0.2.1", nameless._replace(path=("readyz",))).grant is AccessLevel.READ
    for asked in (nameless, request("evil.example")._replace(path=("readyz",)), request("")._replace(path=("readyz",))):
        with pytest.raises(Problem, match="no name of this node"):
            judged_at(guard, "192.0.2.1", asked)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://127.0.0.1:8500"}, AccessLevel.OPERATE),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:8500.evil.example"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"sec_fetch_site": "same-origin"}, AccessLevel.OPERATE),
    ],
)
def test_web_pages_of_others_are_refused(headers: dict[str, str], status: int, tmp_path: Path) -> None:
    assert Guarded(tmp_path).status(request(**headers)) == status


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_a_write_that_a_form_could_send_is_refused(kind: str) -> None:
    asked = request(method="POST", body=b"{}", content_type=kind)._replace(grant=AccessLevel.OPERATE)
    with pytest.raises(Problem) as caught:
        check_may(asked, AccessLevel.WRITE)
    assert caught.value.status == 415


def test_a_token_may_what_it_was_made_for(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    made = {grant: guarded.tokens.create(grant.name, grant, 1) for grant in AccessLevel}
    for grant, token in made.items():
        asked = guarded.guard.judged(request(authorization=f"Bearer {token}"), "192.0.2.1")
        for needed in AccessLevel:
            if needed <= grant:
                check_may(asked, needed)
            else:
                with pytest.raises(Problem) as caught:
                    check_may(asked, needed)
                assert caught.value.status == 403


def test_once_there_are_tokens_one_is_needed_here_too_and_a_withdrawn_one_isnt_one(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    assert guarded.status(request()) == AccessLevel.OPERATE
    token = guarded.tokens.create("one", AccessLevel.READ, 1)
    guarded.tokens.create("two", AccessLevel.READ, 1)
    assert guarded.status(request()) == 401
    assert guarded.status(request(authorization=f"bearer {token}")) == AccessLevel.READ
    other = Tokens(tmp_path)  # a command, in another process
    assert other.remove("one")
    assert not other.remove("one")
    assert guarded.status(request(authorization=f"Bearer {token}")) == 401


def test_elsewhere_a_token_is_needed_though_there_is_none(tmp_path: Path) -> None:
    assert Guarded(tmp_path, is_loopback=False).status(request()) == 401


def test_who_guesses_tokens_isnt_looked_at_for_a_while_and_others_are(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    token = guarded.tokens.create("one", AccessLevel.READ, 1)
    good, bad = request(authorization=f"Bearer {token}"), request(authorization="Bearer aqr_guess")
    assert [guarded.status(bad) for _ in range(int(FAILURES) + 2)] == [401] * int(FAILURES) + [429] * 2
    assert guarded.status(good) == 429
    assert guarded.status(good, "192.0.2.2") == AccessLevel.READ
    guarded.now = 1.0
    assert guarded.status(good) == AccessLevel.READ


def test_wrong_tokens_keep_out_nobody_of_their_address_whose_token_was_right_before(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    token = guarded.tokens.create("one", AccessLevel.READ, 1)
    good, bad = request(authorization=f"Bearer {token}"), request(authorization="Bearer aqr_guess")
    assert guarded.status(good) == AccessLevel.READ
    assert [guarded.status(bad) for _ in range(int(FAILURES) + 1)] == [401] * int(FAILURES) + [429]
    assert guarded.status(good) == AccessLevel.READ
    guarded.tokens.create("other", AccessLevel.READ, 1)
    guarded.tokens.remove("one")
    assert [guarded.status(good) for _ in range(2)] == [401, 429], "one that was withdrawn is as good as any other"


def test_no_token_is_at_rest_and_nobody_else_reads_their_hashes(tmp_path: Path) -> None:
    token = Tokens(tmp_path).create("one", AccessLevel.OPERATE, 1)
    file = tmp_path / FILE
    assert token not in file.read_text()
    assert token.removeprefix("aqr_") not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with pytest.raises(ValueError, match="already"):
        Tokens(tmp_path).create("one", AccessLevel.READ, 1)


def test_a_broken_file_of_tokens_lets_nobody_in(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    (tmp_path / FILE).write_text('{"tokens": [')
    with pytest.raises(StorageError, match="can't be read"):
        guarded.status(request())


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8500", Address("127.0.0.1", 8500)),
        ("localhost:0", Address("127.0.0.1", 0)),
        ("[::1]:8500", Address("::1", 8500)),
        ("127.0.0.1:70000", None),
        ("127.0.0.1", None),
        (":8500", None),
        ("example.org:8500", None),
        ("127.0.0.1:-1", None),
    ],
)
def test_addresses_to_listen_on(text: str, address: Address | None) -> None:
    if address is None:
        with pytest.raises(Misconfigured, match=r"http\.listen"):
            address_in(text)
    else:
        assert address_in(text) == address


def test_other_machines_reach_only_what_is_protected() -> None:
    everywhere, plain = Address("0.0.0.0", 8500), HttpSettings()
    check_exposure(plain, Address("127.0.0.1", 8500), has_tokens=False)
    with pytest.raises(Misconfigured, match="no tokens"):
        check_exposure(HttpSettings(plain=True), everywhere, has_tokens=False)
    with pytest.raises(Misconfigured, match="tls_certificate"):
        check_exposure(plain, everywhere, has_tokens=True)
    check_exposure(HttpSettings(plain=True), everywhere, has_tokens=True)
    check_exposure(HttpSettings(tls_certificate="x.pem"), everywhere, has_tokens=True)


async def test_the_socket_is_its_users_alone_replaces_a_dead_ones_and_goes_with_its_owner(tmp_path: Path) -> None:
    deep = tmp_path / ("long" * 30)
    deep.mkdir()
    path = deep / "http.sock"
    path.touch()  # as a process leaves it that was killed
    with socket_in(deep):
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        folder = os.open(deep, os.O_RDONLY)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"/proc/self/fd/{folder}/http.sock")
        os.close(folder)
    assert not path.exists()


async def test_only_the_nodes_user_and_root_are_heard_on_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel tells who connected, whatever became of the socket's mode."""
    own, other = os.geteuid(), 65_534
    with trio.socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as client:
        await listening.bind(f"\0aqua-registry-{os.getpid()}")  # in no folder whose rights would decide
        listening.listen()
        if own == 0:
            os.seteuid(other)
        try:
            client.connect(listening.getsockname())
        finally:
            os.seteuid(own)
        accepted, _ = await listening.accept()
        with accepted:
            stream = trio.SocketStream(accepted)
            assert is_own_user(stream) is (own != 0)
            monkeypatch.setattr(os, "geteuid", lambda: other)
            assert is_own_user(stream) is (own == 0)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/a/b", ("a", "b")),
        ("/a/../b", ("a", "..", "b")),
        ("//a", ("", "a")),
        ("/a%2F..%2fb/", ("a/../b", "")),
        ("/%00", ("\0",)),
        ("/a?b", ("a",)),
        ("/a?b=%zz", None),
        ("/a?" + "b=1&" * 40 + "b=1", None),
        ("/" * 40, None),
        ("*", None),
    ],
)
def test_a_path_stays_what_it_is(target: str, path: tuple[str, ...] | None) -> None:
    if path is None:
        with pytest.raises(Problem):
            path_and_query(target)
    else:
        assert path_and_query(target)[0] == path
