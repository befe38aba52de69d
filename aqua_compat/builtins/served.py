"""The builtin services that every peer serves."""

from __future__ import annotations

from aqua_compat.builtins.kad import Kad
from aqua_compat.builtins.op import Op
from aqua_compat.builtins.peer import Peer
from aqua_compat.builtins.sig import Sig
from aqua_compat.builtins.trust_graph import TrustGraph
from overlay.identity import Identity
from overlay.peer import OverlayPeer


def builtins_of(peer: OverlayPeer, identity: Identity, trust_graph: TrustGraph) -> dict[str, object]:
    """The builtin services of one peer, by service id."""
    return {"op": Op(), "peer": Peer(peer), "kad": Kad(peer), "sig": Sig(identity), "trust-graph": trust_graph}
