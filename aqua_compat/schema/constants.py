"""The original's constants, which a client may override for itself."""

from __future__ import annotations

import msgspec


class Constants(msgspec.Struct, frozen=True, kw_only=True):
    """What the original compiled into its scripts, named as there."""

    INITIAL_REPLICATION_FACTOR: int = 1
    """Replicas that must have a write on disk before it counts as done. A majority of the neighbourhood lets every
    reader with an `ack` of a majority see it at once."""

    CONSISTENCY_LEVEL: int = 1
    """Replicas that must have answered before `getResource` believes them."""

    DEFAULT_TIMEOUT: int = 6000
    """Milliseconds for a whole function call; then its errors hold `timeout exceeded`."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be an int, not {type(value).__name__}")
            if value < 1:
                raise ValueError(f"{name} is {value}, but must be at least 1")

    @property
    def timeout(self) -> float:
        """DEFAULT_TIMEOUT in seconds."""
        return self.DEFAULT_TIMEOUT / 1000
