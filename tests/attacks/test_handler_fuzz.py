"""Well-formed calls with odd contents end no task of a node, hold it up never, and leave it serving others."""

from __future__ import annotations

import random
from pathlib import Path
from tempfile import mkdtemp

from tests.attacks.handler_fuzz import try_calls
from tests.attacks.repeated import excesses

INPUTS = 400


async def test_no_odd_value_is_a_fault(tmp_path: Path) -> None:
    seed = random.randrange(2**32)

    async def slow() -> str:
        """Turns that took too long; whatever else is wrong is a fault at once."""
        tried = await try_calls(INPUTS, seed, Path(mkdtemp(dir=tmp_path)))
        assert not tried.faults, (seed, tried.faults)
        kinds = {kind for _, kind in tried.answers}
        assert {"Response", "invalid", "malformed", "hosting"} <= kinds, seed  # or nothing was tried
        return "; ".join(tried.slow)

    assert not await excesses(slow), seed
