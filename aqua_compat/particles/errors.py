"""How the door for Aqua fails."""

from __future__ import annotations


class AquaError(Exception):
    """Base of what this door raises."""


class NotInstalled(AquaError):
    """The extra or the interpreter isn't there; the text says how to get it."""


class InterpreterFailed(AquaError):
    """A step ended without an outcome: it was interrupted, trapped, or broke the layout. The instance is of no use."""


class StepInterrupted(InterpreterFailed):
    """The step took too long."""


class BadParticle(AquaError):
    """What came is no particle that this node takes; `reason` is the short name under which it is counted."""

    def __init__(self, reason: str, text: str) -> None:
        self.reason = reason
        super().__init__(text)


class CallError(AquaError):
    """A call of a script fails with this text."""
