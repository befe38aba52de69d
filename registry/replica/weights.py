"""How much peers weigh: what the operator configured, and 0 for strangers (original: the trust graph)."""

from __future__ import annotations

from collections.abc import Mapping

from registry.model.service_results import WeightResult


class Weights:
    """The operator's weights of peers. The node's own peer has none but what the operator gave it."""

    def __init__(self, configured: Mapping[str, int]) -> None:
        self._configured = dict(configured)

    def of(self, peer_id: str) -> int:
        """A weight, 0 or more."""
        return self._configured.get(peer_id, 0)

    def get_weight(self, peer_id: str) -> WeightResult:
        """The same as the original's result type."""
        return WeightResult(success=True, weight=self.of(peer_id), peer_id=peer_id)
