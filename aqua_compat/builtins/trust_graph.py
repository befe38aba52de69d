"""`trust-graph`: the weights of peers, as this node's operator set them."""

from __future__ import annotations

from registry.model.service_results import WeightResult
from registry.replica.weights import Weights


class TrustGraph:
    """The operator's weights; strangers weigh 0."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    async def get_weight(self, peer_id: str, timestamp_sec: int) -> WeightResult:  # noqa: ARG002 - weights don't age
        """A peer's weight."""
        return self._weights.get_weight(peer_id)
