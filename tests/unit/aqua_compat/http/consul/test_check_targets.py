"""Where checks ask that programs register, by what they may do."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from aqua_compat.agent.file_form import CheckForm
from aqua_compat.http.consul.check_targets import check_targets, is_here
from aqua_compat.http.message import AccessLevel
from aqua_compat.http.problems import Problem
from aqua_compat.http.tokens import Tokens
from tests.unit.aqua_compat.http.consul.agents import running_agent

HERE = ("http://127.0.0.1:80/x", "http://LOCALHOST/", "https://[::1]:8443", f"http://{socket.gethostname()}:1/")
ELSEWHERE = (
    "http://192.0.2.1/", "http://[2001:db8::1]:80/", "http://example.com/", "http://localhost.example.com",
    "http://2130706433/", "http://0x7f.1/", "http://169.254.169.254/latest/meta-data/",
)  # fmt: skip


@pytest.mark.parametrize("url", HERE)
def test_this_machine_may_be_asked(url: str) -> None:
    check_targets([CheckForm(http=url)], AccessLevel.WRITE, anywhere=False)


@pytest.mark.parametrize("url", ELSEWHERE)
def test_other_machines_may_be_asked_by_who_may_operate_and_where_the_setting_says_so(url: str) -> None:
    for check in (CheckForm(ttl=5.0), CheckForm(http="not a URL")):  # which nobody is asked for
        check_targets([check], AccessLevel.WRITE, anywhere=False)
    place = url.partition("//")[2].partition("/")[0]
    place = place if place[-1].isdigit() and ":" in place else f"{place}:80"
    for check in (CheckForm(http=url), CheckForm(tcp=place), CheckForm(grpc=f"{place}/service")):
        with pytest.raises(Problem, match="may write, so its checks ask at this machine") as raised:
            check_targets([CheckForm(ttl=5.0), check], AccessLevel.WRITE, anywhere=False)
        assert (raised.value.status, raised.value.code) == (403, "not-permitted")
        check_targets([check], AccessLevel.OPERATE, anywhere=False)
        check_targets([check], AccessLevel.WRITE, anywhere=True)


def test_an_address_of_this_machine_is_known_by_the_system() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
        try:
            sending.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("no route leads out of here")
        own = sending.getsockname()[0]
    assert is_here(own)
    assert not is_here("224.0.0.1")


async def test_who_may_only_write_has_the_node_ask_at_its_machine(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "node")
    write = tokens.create("w", AccessLevel.WRITE, 1)
    operate = tokens.create("o", AccessLevel.OPERATE, 1)
    there = {"Name": "there", "HTTP": "http://192.0.2.1/", "Interval": "10s"}
    async with running_agent(tmp_path / "node", tmp_path / "services") as running:

        async def put(path: str, body: object, token: str) -> int:
            return (await running.ask("PUT", f"/v1/agent/{path}", body, X_Consul_Token=token)).status

        assert await put("service/register", {"Name": "x", "Port": 1, "Check": there}, write) == 403
        here = there | {"Name": "here", "HTTP": "http://127.0.0.1:1/"}
        assert await put("service/register", {"Name": "x", "Port": 1, "Check": here}, write) == 200
        assert await put("check/register", there | {"ServiceID": "x"}, write) == 403
        assert await put("check/register", there | {"ServiceID": "x"}, operate) == 200
        assert await put("service/register", {"Name": "x", "Port": 2}, write) == 200, "its checks stay"
