"""Errors of serving Aqua."""

from __future__ import annotations


class AquaError(Exception):
    """Base of what serving Aqua raises."""


class NotInstalled(AquaError):
    """The extra or the interpreter is missing; the text says how to get it."""


class InterpreterFailed(AquaError):
    """A step ended without an outcome: it was interrupted, trapped, or gave what isn't in its form. The instance
    can't be used any more."""


class StepInterrupted(InterpreterFailed):
    """The step took too long."""


class BadParticle(AquaError):
    """What was received is no particle that this node takes; `reason` is the short name under which it is counted."""

    def __init__(self, reason: str, text: str) -> None:
        self.reason = reason
        super().__init__(text)


class CallError(AquaError):
    """A call of a script fails with this text."""
