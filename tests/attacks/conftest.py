"""Attacks on whole nodes over real connections: what a node logged is shown beside a failure."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def logged() -> Iterator[None]:
    """Warnings and errors of the nodes, which run in this process, and nothing of what attackers make them note."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    yield
    structlog.reset_defaults()
