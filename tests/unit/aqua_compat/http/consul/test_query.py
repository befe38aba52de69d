"""What a request asks is read as Consul reads it, and bounded."""

from __future__ import annotations

import pytest

from aqua_compat.http.consul.query import DEFAULT_WAIT, LONGEST_WAIT, MOST_TAGS, Query, query_of
from aqua_compat.http.message import path_and_query
from aqua_compat.http.problems import Problem


def query(text: str) -> Query:
    _, fields = path_and_query(f"/v1/health/service/web?{text}")
    return query_of(fields)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("passing", True), ("passing=", True), ("passing=1", True), ("passing=true", True), ("passing=0", False),
     ("passing=false", False), ("", False), ("stale&cached&ns=default", False)],
)  # fmt: skip
def test_passing_needs_no_value(text: str, wanted: bool) -> None:
    assert query(text).passing is wanted


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("", DEFAULT_WAIT), ("wait=10s", 10.0), ("wait=1m30s", 90.0), ("wait=250ms", 0.25), ("wait=2h", LONGEST_WAIT),
     ("wait=0s", DEFAULT_WAIT)],
)  # fmt: skip
def test_a_wait_is_a_duration_up_to_ten_minutes(text: str, seconds: float) -> None:
    assert query(text).wait == seconds


def test_tags_are_all_wanted_in_whatever_case() -> None:
    asked = query("tag=V2&tag=blue&dc=acme&near=_agent&filter=a+==+b&node-meta=rack:1:2&index=7")
    assert asked == Query(
        7, DEFAULT_WAIT, False, frozenset({"v2", "blue"}), "_agent", "acme", (("rack", "1:2"),), "a == b"
    )
    assert asked.part == query("tag=blue&tag=v2&dc=acme&near=_agent&filter=a+==+b&node-meta=rack:1:2&wait=1s").part


@pytest.mark.parametrize(
    "text", ["index=-1", "index=x", "index=1e3", f"index={2**64}", "wait=10", "wait=-1s", "wait=" + "1" * 200 + "s",
             "passing=maybe", "&".join(f"tag={n}" for n in range(MOST_TAGS + 1))],
)  # fmt: skip
def test_what_is_wrong_is_refused(text: str) -> None:
    with pytest.raises(Problem) as refused:
        query(text)
    assert refused.value.status == 400
