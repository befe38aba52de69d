"""Chains of certificates as text, for files and messages: one line, which people hand to each other as it is."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Final

from overlay.membership.certificate import (
    MAX_CHAIN_BYTES,
    Certificate,
    CertificateError,
    CertificateFault,
    decode_chain,
    encode_chain,
)

MARK: Final = "aqua-registry-certificates:"
MAX_TEXT: Final = 2 * MAX_CHAIN_BYTES
"""Bytes of such a text at most, spaces around it included."""


def text_of(chain: Sequence[Certificate]) -> str:
    """A chain as one line of text, without its end."""
    return MARK + base64.b64encode(encode_chain(chain)).decode("ascii")


def chain_in_text(text: bytes) -> tuple[Certificate, ...]:
    """The chain that a text holds, one certificate at least; its form is checked, not what it permits. Raises
    CertificateError."""
    if len(text) > MAX_TEXT:
        raise CertificateError(CertificateFault.FORM, f"it has more than {MAX_TEXT} bytes, so it is no certificate")
    content = text.strip()
    if not content:
        raise CertificateError(CertificateFault.FORM, "it is empty; get the certificate anew")
    if not content.startswith(MARK.encode()):
        raise CertificateError(CertificateFault.FORM, f"it doesn't begin with {MARK!r}, so it is no certificate")
    try:
        encoded = base64.b64decode(content[len(MARK) :], validate=True)
    except binascii.Error as error:
        raise CertificateError(CertificateFault.FORM, "its text is cut off or changed; get the file anew") from error
    chain = decode_chain(encoded)
    if not chain:
        raise CertificateError(CertificateFault.FORM, "it holds no certificate; get the file anew")
    return chain
