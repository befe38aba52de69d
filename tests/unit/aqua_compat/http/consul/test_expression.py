"""Filters say what Consul's say, whatever their text costs nothing, and what is wrong in one is told."""

from __future__ import annotations

import gc
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aqua_compat.http.consul.entries import CATALOG_EXAMPLE, CHECK_EXAMPLE, HEALTH_EXAMPLE, NODE_EXAMPLE
from aqua_compat.http.consul.expression import MAX_COMPARISONS, MAX_DEPTH, MAX_LENGTH, BadExpression, parse

ENTRY: dict[str, Any] = {
    "Node": {"Node": "n1", "Address": "10.0.0.1", "Meta": {}},
    "Service": {
        "ID": "web-1", "Service": "web", "Tags": ["v2", "blue green"], "Port": 80, "EnableTagOverride": False,
        "Meta": {"zone": "eu", "a.b": "dotted", "empty": ""},
    },
    "Checks": [{"Status": "passing", "CheckID": "serfHealth"}, {"Status": "warning", "CheckID": "service:web-1"}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Service.Meta.zone == eu", True),
        ('Service.Meta.zone == "eu"', True),
        ("Service.Meta.zone==`eu`", True),
        ('Service.Meta["zone"] == eu', True),
        ('Service.Meta["a.b"] == dotted', True),
        ('"/Service/Meta/zone" == eu', True),
        ("Service.Meta.zone != us", True),
        ("Service.Meta.nowhere == us", False),
        ("Service.Meta.nowhere != us", True),
        ("Service.Meta.nowhere is empty", True),
        ("Service.Meta.empty is empty", True),
        ("Service.Meta is not empty", True),
        ("zone in Service.Meta", True),
        ("nowhere not in Service.Meta", True),
        ("v2 in Service.Tags", True),
        ('"blue green" in Service.Tags', True),
        ("Service.Tags contains v2", True),
        ('Service.Meta.zone != "=="', True),
        ('"(" not in Service.Tags', True),
        ("Service.Tags contains v", False),
        ("Service.Tags not contains v3", True),
        ("Service.Service contains eb", True),
        ("Service.Port == 80", True),
        ("Service.Port != 80", False),
        ("Service.EnableTagOverride == false", True),
        ("Checks.Status == warning", True),
        ("Checks.Status == critical", False),
        ("Checks.Status != critical", True),
        ("Checks is empty", False),
        ("not Service.Port == 80", False),
        ("not (Service.Port == 80 and v3 in Service.Tags)", True),
        ("Service.Port == 81 or v2 in Service.Tags and Service.ID == `web-1`", True),
        ("(Service.Port == 81 or v2 in Service.Tags) and Service.ID == x", False),
        ("not not v2 in Service.Tags", True),
    ],
)
def test_an_expression_says_of_an_entry_what_consul_says(text: str, wanted: bool) -> None:
    assert parse(text, HEALTH_EXAMPLE).matches(ENTRY) is wanted


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "ends too early"),
        ("Service.Nope == x", "no field"),
        ("Service.Meta.a.b == x", "no field"),
        ("Node == ", "ends too early"),
        ("(Service.Port == 80", "isn't closed"),
        ("Service.Port == 80)", "more than one"),
        ("Service.Port == 80 Service.Port == 80", "more than one"),
        ("Service.Port > 80", "operator is missing"),
        ("Service.Port contains 80", "neither text nor list"),
        ("80 not in Service.Weights.Passing", "neither text nor list"),
        ("Service.EnableTagOverride contains a", "neither text nor list"),
        ("Service.ID matches `web.*`", "regular expressions"),
        ("Service.ID is maybe", "operator is missing"),
        ('Service.ID == "web', "can't be read"),
        ("x" * (MAX_LENGTH + 1), "characters, more than"),
        ("(" * (MAX_DEPTH + 1), "nested"),
        ("not " * (MAX_DEPTH + 1), "nested"),
        (" and ".join(["Service.Port == 1"] * (MAX_COMPARISONS + 1)), "more than"),
        ("Service.Meta[", "a key is missing"),
        ("Service.Meta[zone == eu", "isn't closed"),
    ],
)
def test_what_is_no_expression_is_told(text: str, told: str) -> None:
    with pytest.raises(BadExpression, match=told):
        parse(text, HEALTH_EXAMPLE)


def test_each_kind_of_answer_has_its_own_fields() -> None:
    parse("ServiceMeta.zone == eu and ServiceTags contains v2", CATALOG_EXAMPLE)
    parse("Status == passing and ServiceTags contains v2", CHECK_EXAMPLE)
    parse("Meta.rack == 1 or TaggedAddresses.lan == x", NODE_EXAMPLE)
    with pytest.raises(BadExpression):
        parse("ServiceMeta.zone == eu", HEALTH_EXAMPLE)


LEAVES = {
    "Service.Port == 80": True,
    "Service.Port != 80": False,
    "v2 in Service.Tags": True,
    "Service.Tags contains v3": False,
    "Service.Meta.zone is empty": False,
}


def an_expression() -> st.SearchStrategy[tuple[str, bool]]:
    """Texts, and what they say of `ENTRY` by Python's own rules, which are the same."""

    def larger(inner: st.SearchStrategy[tuple[str, bool]]) -> st.SearchStrategy[tuple[str, bool]]:
        return st.one_of(
            inner.map(lambda one: (f"not ({one[0]})", not one[1])),
            st.tuples(inner, inner).map(lambda two: (f"({two[0][0]}) and ({two[1][0]})", two[0][1] and two[1][1])),
            st.tuples(inner, inner).map(lambda two: (f"({two[0][0]}) or ({two[1][0]})", two[0][1] or two[1][1])),
        )

    return st.recursive(st.sampled_from(sorted(LEAVES.items())), larger, max_leaves=8)


@given(an_expression())
def test_brackets_and_words_bind_as_they_say(one: tuple[str, bool]) -> None:
    text, wanted = one
    assert parse(text, HEALTH_EXAMPLE).matches(ENTRY) is wanted


@given(st.lists(st.tuples(st.sampled_from(["and", "or"]), st.sampled_from(sorted(LEAVES)), st.booleans()), max_size=8))
def test_without_brackets_not_binds_closest_then_and(terms: list[tuple[str, str, bool]]) -> None:
    terms = [("and", "Service.Port == 80", False), *terms]
    text = " ".join(f"{word} {'not ' * negated}{leaf}" for word, leaf, negated in terms).removeprefix("and ")
    oracle = " ".join(f"{word} {'not ' * negated}{LEAVES[leaf]}" for word, leaf, negated in terms)
    assert parse(text, HEALTH_EXAMPLE).matches(ENTRY) is eval(oracle.removeprefix("and "))


@given(st.text(alphabet='ab.=!()[]"`\\ notinandorcontainsisempty/Service\n', max_size=200) | st.text(max_size=50))
def test_any_text_is_an_expression_or_is_refused(text: str) -> None:
    with suppress(BadExpression):
        assert parse(text, HEALTH_EXAMPLE).matches(ENTRY) in (True, False)


@pytest.mark.parametrize("piece", ['"\\', "`", "a.", "a[", "==", "( ", "not ", '"a" '])
def test_no_text_takes_long(piece: str) -> None:
    text = (piece * MAX_LENGTH)[:MAX_LENGTH]
    gc.collect()  # what other tests left, which would take longer than what is measured
    began = time.thread_time()
    with pytest.raises(BadExpression):
        parse(text, HEALTH_EXAMPLE)
    assert time.thread_time() - began < 0.05
