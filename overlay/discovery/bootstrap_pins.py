"""Who answered where the operator named no peer: kept, so that from then on only these count there.

The first to answer at an address can be anyone who is on the way to it; pins notice somebody else from then on. In a
private network certificates decide instead, and nothing is pinned.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

import msgspec
import structlog

from overlay.errors import OverlayError
from overlay.private_file import write_private

FILE: Final = "bootstrap-pins.json"
MOST_BYTES: Final = 256 * 1024
_MOST_PINS: Final = 64  # ids of one address

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_Pins = dict[str, list[str]]


class BootstrapPins:
    """Per address as it was given, the peer ids that answered there first.

    The file is read whenever they count, which is seldom: who takes one out of it, to pin anew, needn't start the peer
    again.
    """

    def __init__(self, folder: Path | None) -> None:
        """`folder`: where they are kept; None keeps them in memory. Raises OverlayError for a file that can't be read
        or is none of ours."""
        self.path = folder / FILE if folder is not None else None
        self._unkept: _Pins = {}
        """Those that are in no file: there is none, or it couldn't be written."""
        self._all()

    def of(self, place: str) -> Collection[str]:
        """The peers that are pinned to an address. Raises OverlayError, as `__init__` does."""
        return tuple(self._all().get(place, ()))

    def pin(self, place: str, peer_ids: Collection[str]) -> None:
        """Have only these peers count at an address from now on. Raises OverlayError, as `__init__` does."""
        pins = self._all()
        pins[place] = list(peer_ids)[:_MOST_PINS]
        log.warning(
            "trusting who answered first at an address without a peer id",
            address=place,
            peers=pins[place],
            file=str(self.path or ""),
        )
        if self.path is None:
            self._unkept = pins
            return
        try:
            write_private(self.path, msgspec.json.format(msgspec.json.encode(pins)) + b"\n")
            self._unkept = {}
        except OSError as error:
            self._unkept = pins
            log.warning("who answered first can't be kept", file=str(self.path), error=str(error))

    def _all(self) -> _Pins:
        try:
            kept = msgspec.json.decode(self.path.read_bytes()[:MOST_BYTES], type=_Pins) if self.path is not None else {}
        except FileNotFoundError:
            kept = {}
        except (OSError, msgspec.DecodeError, UnicodeError) as error:
            raise OverlayError(f"can't read {self.path}: {error}; mend it, or delete it to pin anew") from error
        return self._unkept | kept
