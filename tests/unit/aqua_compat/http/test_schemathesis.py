"""The server is what its description says, for whatever Schemathesis makes of it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import trio
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from aqua_compat.http.openapi import description
from tests.unit.aqua_compat.http.running import running_server

ENDLESS = {"watch", "lend"}
CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]
WITHIN = 20.0  # seconds for an answer
FORESEEN = {502, 503, 504}  # what is asked for isn't to be had now


def try_operations(url: str, examples: int) -> dict[str, set[int]]:
    """Asks each operation for that many things; the statuses that came, by operation."""
    schema = schemathesis.openapi.from_dict(json.loads(description()))
    seen: dict[str, set[int]] = {}
    for found in schema.get_all_operations():
        operation = found.ok()
        name = operation.definition.raw["operationId"]
        if name not in ENDLESS:
            statuses = seen.setdefault(name, set())
            _try(operation, url, examples, statuses)
    return seen


def _try(operation: Any, url: str, examples: int, statuses: set[int]) -> None:
    @seed(1)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        if isinstance(case.body, dict) and "timeout" in case.body:
            case.body["timeout"] = min(case.body["timeout"], 1.0)  # of what waits for somebody who isn't there
        case.query = {**(case.query or {})}
        if "timeout" in case.query:
            case.query["timeout"] = min(case.query["timeout"], 1.0)
        response = case.call(base_url=url, timeout=WITHIN)
        statuses.add(response.status_code)
        checks = CHECKS[1:] if response.status_code in FORESEEN else CHECKS
        case.validate_response(response, checks=checks)

    ask()


async def hold(tmp_path: Path, examples: int) -> None:
    async with running_server(tmp_path) as running:
        seen = await trio.to_thread.run_sync(partial(try_operations, f"http://{running.server.address}", examples))
        answers = set().union(*seen.values())
        assert {200, 400} <= answers, seen
        assert 500 not in answers, seen
        assert (await running.ask("GET", "/healthz")).status == 200


async def test_the_server_answers_as_it_is_described_whatever_is_asked(tmp_path: Path) -> None:
    await hold(tmp_path, 3)


@pytest.mark.slow
@pytest.mark.timeout(1_200)
async def test_the_server_answers_as_it_is_described_for_much_more(tmp_path: Path) -> None:
    await hold(tmp_path, 300)
