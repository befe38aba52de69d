"""How long the turns of tasks take, in CPU time of the loop's thread."""

from __future__ import annotations

import gc
import time

import trio


class LongestTurn(trio.abc.Instrument):
    """The longest turn of a task, in seconds of CPU, since this was added.

    What other tests left isn't looked through for garbage in these turns, as a node doesn't look through what it
    started with: of a long process that takes longer than what is measured.
    """

    def __init__(self) -> None:
        gc.collect()
        gc.freeze()
        self.longest = self._began = 0.0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._began:
            self.longest = max(self.longest, time.thread_time() - self._began)
