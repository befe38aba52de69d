"""A lock of all that runs in one loop of Trio, whoever made it: several peers in a process share its thread."""

from __future__ import annotations

import trio


class LockOfRun:
    """Made once, for a module; each run of Trio has its own lock."""

    def __init__(self, name: str) -> None:
        """`name`: what it is held for."""
        self._of_run: trio.lowlevel.RunVar[trio.Lock] = trio.lowlevel.RunVar(f"the lock of {name}")

    @property
    def lock(self) -> trio.Lock:
        """That of the run that this is called in."""
        try:
            return self._of_run.get()
        except LookupError:
            lock = trio.Lock()
            self._of_run.set(lock)
            return lock
