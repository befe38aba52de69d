"""What we say for libp2p is what libp2p says."""

from __future__ import annotations

import pytest
from libp2p.protocol_muxer.multiselect import MULTISELECT_PROTOCOL_ID
from libp2p.utils import encode_delim

from overlay.rpc.negotiation import negotiation_of


@pytest.mark.parametrize("protocol_id", ["/p/1", "/" + "x" * 125])
def test_a_protocol_is_proposed_in_libp2ps_words(protocol_id: str) -> None:
    expected = encode_delim(MULTISELECT_PROTOCOL_ID.encode()) + encode_delim(protocol_id.encode())
    assert negotiation_of(protocol_id) == expected


def test_a_protocol_id_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 126 bytes"):
        negotiation_of("/" + "x" * 126)
