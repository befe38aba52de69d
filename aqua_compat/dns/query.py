"""A DNS query out of its bytes, and an answer's bytes for the one who asked. Pure; dnspython reads and writes the wire.

Rules:
1. A message is looked at only as far as it is a query: an answer is never answered, or two servers could go on for
   ever. What is longer than any query is, or has more in it than a question and what belongs to EDNS or its signature,
   is a FORMERR without having been read.
2. An answer is made once and sent to many: its own are the id, the flags, the question as it was written (resolvers
   vary its case to make guessing harder) and EDNS's part.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

HEADER: Final = 12  # bytes
LONGEST_QUERY: Final = 512  # bytes
CLASSIC: Final = 512  # bytes that an answer has where EDNS says nothing else
CLIENT_COOKIE: Final = 8  # bytes
MOST_EDNS: Final = 39  # bytes that EDNS adds to an answer: its record, with a cookie of 24
_MOST_ADDITIONAL: Final = 2  # OPT, and TSIG or SIG(0)
_OPT: Final = struct.Struct("!BHHIH")
_HEAD: Final = struct.Struct("!HHHHHH")
_VERSION: Final = 0  # of EDNS


class DnsQuery(NamedTuple):
    """A query, but for its id. `labels`: of the name in lower case, without the root's; `question`: as it was
    written. `refused`: the rcode where it can't be answered, in place of all else."""

    flags: int
    question: bytes = b""
    labels: tuple[str, ...] = ()
    type: int = 0
    is_internet: bool = True
    refused: int = 0
    has_edns: bool = False
    payload: int = CLASSIC
    """Bytes that the asker takes by UDP."""
    cookie: bytes = b""
    """What it sent as its cookie: its own part, and perhaps what a server gave it."""


def is_query(wire: bytes) -> bool:
    """Whether a message is to be answered at all."""
    return len(wire) >= HEADER and not wire[2] & 0x80


def parse_query(wire: bytes) -> DnsQuery:
    """What a message asks for that is a query."""
    _, flags, *counts = _HEAD.unpack_from(wire)
    opcode = dns.opcode.from_flags(flags)
    if opcode != dns.opcode.QUERY:
        return DnsQuery(flags, refused=dns.rcode.NOTIMP)
    if len(wire) > LONGEST_QUERY or counts[:3] != [1, 0, 0] or counts[3] > _MOST_ADDITIONAL:
        return DnsQuery(flags, refused=dns.rcode.FORMERR)
    try:
        message = dns.message.from_wire(wire)
    except (dns.exception.DNSException, ValueError, struct.error, IndexError):
        return DnsQuery(flags, refused=dns.rcode.FORMERR)
    [question] = message.question
    name = question.name
    plain = name.to_wire() or b""
    if not wire.startswith(plain, HEADER):  # compressed, though there is nothing before it to point to
        return DnsQuery(flags, refused=dns.rcode.FORMERR)
    written = wire[HEADER : HEADER + len(plain) + 4]
    has_edns = message.edns >= 0
    return DnsQuery(
        flags,
        written,
        tuple(label.lower().decode("utf-8", "backslashreplace") for label in name.labels[:-1]),
        question.rdtype,
        question.rdclass == dns.rdataclass.IN,
        dns.rcode.BADVERS if message.edns > _VERSION else 0,
        has_edns,
        max(message.payload, CLASSIC) if has_edns else CLASSIC,
        next((each.to_wire() or b"" for each in message.options if each.otype == dns.edns.OptionType.COOKIE), b"")
        if has_edns
        else b"",
    )


class Content(NamedTuple):
    """What an answer says: the records asked for, none where there are none, and addresses beside them."""

    answer: Sequence[dns.rrset.RRset] = ()
    additional: Sequence[dns.rrset.RRset] = ()


def written(name: dns.name.Name, kind: int, content: Content, longest: int, *, by_tcp: bool = False) -> bytes:
    """An answer of so many bytes at most, for whoever asks that. What doesn't fit is left out: if that is more than
    addresses beside the answer, it says so (TC); `by_tcp`, where there is no other way, it has the records that fit."""
    made = _written(name, kind, content, longest)
    while by_tcp and made[2] & dns.flags.TC >> 8 and len(content.answer[0]) > 1:
        half = dns.rrset.RRset(name, dns.rdataclass.IN, content.answer[0].rdtype)
        half.ttl = content.answer[0].ttl
        for each in list(content.answer[0])[: len(content.answer[0]) // 2]:
            half.add(each)
        content = content._replace(answer=[half])
        made = _written(name, kind, content, longest)
    return made


def _written(name: dns.name.Name, kind: int, content: Content, longest: int) -> bytes:
    message = dns.message.QueryMessage(id=0)
    message.flags = dns.flags.QR | dns.flags.AA
    message.question = [dns.rrset.RRset(name, dns.rdataclass.IN, dns.rdatatype.RdataType.make(kind))]
    message.answer, message.additional = list(content.answer), list(content.additional)
    return message.to_wire(max_size=longest, prefer_truncation=True, want_shuffle=False)


def nothing(question: bytes, rcode: int, soa: bytes) -> bytes:
    """An answer without any record but the SOA, whose bytes are given: as `written` makes it, at no cost."""
    return _HEAD.pack(0, dns.flags.QR | dns.flags.AA | rcode, 1, 0, 1, 0) + question + soa


def reply(message_id: bytes, query: DnsQuery, made: bytes, payload: int, cookie: bytes = b"") -> bytes:
    """The answer to one query, out of one that was made for its question. `payload`: bytes that this server takes by
    UDP; `cookie`: the asker's and ours, if it sent one."""
    flags, counts = made[2:4], made[4:HEADER]
    asked = query.flags & (dns.flags.RD | dns.flags.CD)
    told = int.from_bytes(flags, "big") | asked
    after = made[HEADER + len(query.question) :]
    if not query.has_edns:
        return message_id + told.to_bytes(2, "big") + counts + query.question + after
    return (
        message_id
        + told.to_bytes(2, "big")
        + counts[:6]
        + (int.from_bytes(counts[6:], "big") + 1).to_bytes(2, "big")
        + query.question
        + after
        + _edns(query, payload, cookie)
    )


def refusal(
    message_id: bytes, query: DnsQuery, rcode: int, payload: int, cookie: bytes = b"", *, is_truncated: bool = False
) -> bytes:
    """An answer that says no more than an rcode; `is_truncated`: that there is more by TCP."""
    flags = dns.flags.QR | (query.flags & (0x7800 | dns.flags.RD)) | (rcode & 0xF)
    flags |= dns.flags.TC if is_truncated else 0
    edns = _edns(query._replace(refused=rcode), payload, cookie) if query.has_edns else b""
    question = query.question
    return message_id + _HEAD.pack(0, flags, bool(question), 0, 0, bool(edns))[2:] + question + edns


def edns_size(query: DnsQuery, cookie: bytes) -> int:
    """Bytes that EDNS adds to an answer."""
    return (len(_edns(query, 0, cookie))) if query.has_edns else 0


def _edns(query: DnsQuery, payload: int, cookie: bytes) -> bytes:
    options = struct.pack("!HH", dns.edns.OptionType.COOKIE, len(cookie)) + cookie if cookie else b""
    extended = query.refused >> 4 << 24
    return _OPT.pack(0, dns.rdatatype.OPT, payload, extended, len(options)) + options
