"""Where this repository, the data of its tests, and what they make once for each machine are."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from platformdirs import user_cache_path

ROOT: Final = Path(__file__).parents[1]
DATA: Final = ROOT / "tests" / "data"
KEPT: Final = user_cache_path("aqua-registry") / "tests"
"""What npm installed and compilers made: a new clone with the same lock files is spared half a minute of CPU."""


@contextmanager
def claimed(folder: Path) -> Iterator[Path]:
    """A folder of what is kept, made if it isn't there; other tests that want it wait until the block ends."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
