"""One seed in a process of a pool: which has to import what it runs."""

from __future__ import annotations

import logging
import time
import traceback

import structlog

from tests.simulation.scenario import run


def tried(seed: int, *, nodes: int, faults: float, repair: float, pace: float) -> tuple[bool, str]:
    """Whether a seed held, and what is to be told of it."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    started = time.process_time()
    try:
        report = run(seed, nodes, faults=faults, repair=repair, pace=pace)
    except Exception:
        return False, f"FAILED\n{traceback.format_exc()}"
    return True, (
        f"{report.acknowledged} of {report.attempted} writes acknowledged, {report.left} left, "
        f"{report.reads} reads, "
        f"{report.crashes} crashes, {report.sick} sick, {report.rotten} rotten, "
        f"{report.messages} messages, {report.events} events, "
        f"{report.changes} changes of policies, {report.begun_anew} begun anew, "
        f"{report.refused} registrations refused, {report.forged} forgeries, {report.audited} looks, "
        f"{report.closed} links closed, {report.downs} told down, "
        f"{report.deaths} deaths known after {report.gone_after:.2f} s and {report.back_after:.2f} s, "
        f"trace {report.trace[:16]}, {time.process_time() - started:.1f} s of CPU"
    )
