"""How much peers weigh: what the operator configured, else what the trust graph says; 0 for strangers."""

from __future__ import annotations

from collections.abc import Mapping

from registry.model.service_results import WeightResult
from registry.replica.trust_keeper import TrustKeeper


class Weights:
    """The weights that limits go by. The node's own peer has none but what it is given as any other."""

    def __init__(self, configured: Mapping[str, int], trust: TrustKeeper | None = None) -> None:
        """`configured`: the operator's word on peers, which comes before that of the graph, also when it is 0."""
        self._configured = dict(configured)
        self._trust = trust

    def of(self, peer_id: str) -> int:
        """A weight, 0 or more."""
        configured = self._configured.get(peer_id)
        if configured is not None:
            return configured
        return self._trust.weight(peer_id) if self._trust is not None else 0

    def get_weight(self, peer_id: str) -> WeightResult:
        """The same as the original's result type."""
        return WeightResult(success=True, weight=self.of(peer_id), peer_id=peer_id)
