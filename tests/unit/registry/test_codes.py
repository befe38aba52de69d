"""Every refusal has a code that travels beside its text."""

from __future__ import annotations

from collections.abc import Iterator

import cbor2
import pytest

import registry.errors
import registry.permission.errors
import registry.trust.errors
from overlay.errors import CallRefused, CallTimeout, ConnectionLost, Overloaded, ProtocolError, Unreachable
from registry.codes import Code, Kind
from registry.errors import (
    HostingRefused,
    InvalidKeyTimestamp,
    InvalidValue,
    KeyRemoved,
    NewerRecordOrTombstoneExists,
    NotResponsible,
    QuotaExceeded,
    RateExceeded,
    RegistryError,
    RegistryRefusal,
    StorageError,
    UnknownKind,
)
from registry.protocol.error_info import ErrorInfo, texts
from registry.protocol.messages import PutAnswer, WriteOutcome, build, parse

MODULES = (registry.errors.__name__, registry.permission.errors.__name__, registry.trust.errors.__name__)


def kinds_of(error: type[RegistryError]) -> Iterator[type[RegistryError]]:
    yield error
    for kind in error.__subclasses__():
        if kind.__module__ in MODULES:
            yield from kinds_of(kind)


def over_the_wire(body: object) -> object:
    return cbor2.loads(cbor2.dumps(body))


def test_a_fault_of_the_disk_is_told_without_this_nodes_paths() -> None:
    assert ErrorInfo.of(StorageError("can't write /var/lib/somebody/node.sqlite")) == ErrorInfo(
        Code.STORAGE, "the disk refused"
    )


def test_every_error_has_a_code_of_its_own() -> None:
    classes = list(dict.fromkeys(kinds_of(RegistryError)))
    assert all("code" in vars(error) for error in classes), "inherited codes would be those of another error"
    codes = [error.code for error in classes]
    assert len(set(codes)) == len(codes)
    assert all(isinstance(code, Code) for code in codes)


def test_codes_never_change_what_they_are_on_the_wire() -> None:
    assert len({code.value for code in Code}) == len(Code)
    assert Code.FAILED.value == "failed"
    assert Code.STORAGE.value == "storage"
    assert Code.NOT_RESPONSIBLE.value == "not-responsible"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidValue("x"), Kind.FINAL),
        (KeyRemoved("x"), Kind.FINAL),
        (NewerRecordOrTombstoneExists("x", "y", "z"), Kind.FINAL),
        (NotResponsible("x"), Kind.ASKED),
        (QuotaExceeded("x"), Kind.ASKED),
        (RateExceeded("x"), Kind.LOAD),
        (StorageError("x"), Kind.DISK),
        (InvalidKeyTimestamp(), Kind.CLOCK),
        (HostingRefused("x"), Kind.FINAL),
        (HostingRefused("x", code=Code.RATE_EXCEEDED), Kind.LOAD),
        (Overloaded("peer", "method"), Kind.LOAD),
        (CallTimeout("peer", "method"), Kind.NETWORK),
        (ConnectionLost("peer", "method"), Kind.NETWORK),
        (Unreachable("peer", "method"), Kind.NETWORK),
        (ProtocolError("peer", "method"), Kind.ASKED),
        (UnknownKind("x"), Kind.ASKED),
        (CallRefused("peer", "method", "storage", "the disk refused"), Kind.DISK),
        (CallRefused("peer", "method", "of a later version", "no"), Kind.UNKNOWN),
    ],
)
def test_a_kind_tells_what_asking_again_comes_to(error: RegistryError, kind: Kind) -> None:
    assert ErrorInfo.of(error).kind is kind


def test_all_but_what_is_about_the_request_or_who_is_asked_is_temporary() -> None:
    assert [kind for kind in Kind if not kind.is_temporary] == [Kind.FINAL, Kind.ASKED]


@pytest.mark.parametrize("code", list(Code))
def test_a_code_comes_through_the_wire(code: Code) -> None:
    answer = PutAnswer((None, ErrorInfo(code, "why")))
    received = parse(over_the_wire(build(answer)), PutAnswer)
    assert received == answer
    assert received.errors[1] is not None
    assert received.errors[1].known_code is code


def test_the_code_of_a_later_version_is_taken_as_failed() -> None:
    received = parse(over_the_wire([0, 1, [["no-such-code", "why"]], False, ""]), WriteOutcome)
    [error] = received.errors
    assert error.known_code is Code.FAILED
    assert error.on("peer") == ErrorInfo(Code.FAILED, "why on peer")
    assert texts(received.errors) == ("why",)
    assert type(error.exception()) is RegistryRefusal
    assert error.exception().code is Code.FAILED


def test_a_refusal_is_raised_anew_as_what_it_was() -> None:
    original = KeyRemoved("x")
    raised = ErrorInfo.of(original).exception()
    assert isinstance(raised, KeyRemoved)
    assert str(raised) == str(original)
    assert raised.code is Code.KEY_REMOVED


def test_what_a_node_says_of_a_value_or_its_disk_is_a_refusal_here() -> None:
    for error in (StorageError("x"), InvalidValue("x")):
        raised = ErrorInfo.of(error).exception()
        assert isinstance(raised, RegistryRefusal)
        assert raised.code is error.code


def test_the_text_of_another_peer_is_shortened_where_it_is_passed_on() -> None:
    assert len(ErrorInfo("failed", "x" * 100_000).on("peer").text) < 1100


def test_every_refusal_is_itself_again_behind_the_wire() -> None:
    for kind in kinds_of(RegistryRefusal):
        assert type(ErrorInfo(kind.code, "told").exception()) is kind
