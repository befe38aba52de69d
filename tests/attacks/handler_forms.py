"""What the methods of a node are called with, and what its own calls are answered with: the type of each body."""

from __future__ import annotations

from typing import Any, Final, get_type_hints

from aqua_compat.rpc.server import CALL_METHOD, LIST_METHOD, STREAM_METHOD, ServiceCall, StreamCall
from aqua_compat.rpc.streams import RESULTS_METHOD, _ResultBatch
from overlay.clock import watch as clock
from overlay.discovery import address_search, home_view, recursive, vetting
from overlay.discovery.member_queries import _LOOKUP_METHOD, _NEAREST_METHOD, _Query
from overlay.discovery.peer_records import GET_METHOD, PUT_METHOD, _Get, _RecordPut
from overlay.discovery.recursive import KnownMember
from overlay.relaying.client_probe import _THERE
from overlay.relaying.relay import METHODS, RELAY_METHOD, Purpose, RelayRequest
from registry.client.node_operations import OPERATIONS
from registry.health.messages import EXCEPTIONS, REPORT_HEALTH, ExceptionsBody, ExceptionsPage, ReportBody
from registry.protocol.index_messages import ENTER, LIST, LISTS, EnterBody, IndexPage, ListBody, ListsAnswer, ListsBody
from registry.protocol.messages import (
    COUNTERSIGN,
    HOLDS,
    PASSED_ON,
    PUT,
    READ,
    CountersignBody,
    HoldsAnswer,
    HoldsBody,
    PassedOnAnswer,
    PassedOnBody,
    PutAnswer,
    PutBody,
    ReadBody,
    StatePage,
)
from registry.replication.messages import (
    COMPARE,
    COMPARE_RANGES,
    PULL,
    REPLICATE,
    CompareAnswer,
    CompareBody,
    PullBody,
    RangesAnswer,
    RangesBody,
    ReplicateBody,
)
from registry.service import RegistryService
from registry.watch.messages import ANNOUNCE, READ_WATCHED, SUBSCRIBE, AnnounceBody, SubscribeAnswer, SubscribeBody

REQUESTS: Final[dict[str, Any]] = {
    **{operation.name: tuple[float, operation.request] for operation in OPERATIONS},  # type: ignore[name-defined]
    ANNOUNCE: AnnounceBody,
    CALL_METHOD: ServiceCall,
    COMPARE: CompareBody,
    COMPARE_RANGES: RangesBody,
    COUNTERSIGN: CountersignBody,
    ENTER: EnterBody,
    EXCEPTIONS: ExceptionsBody,
    GET_METHOD: _Get,
    HOLDS: HoldsBody,
    LIST: ListBody,
    LISTS: ListsBody,
    LIST_METHOD: None,
    METHODS[Purpose.OPENING]: bytes,
    METHODS[Purpose.REQUEST]: bytes,
    PASSED_ON: PassedOnBody,
    PULL: PullBody,
    PUT: PutBody,
    PUT_METHOD: _RecordPut,
    READ: ReadBody,
    READ_WATCHED: ReadBody,
    RELAY_METHOD: RelayRequest,
    REPLICATE: ReplicateBody,
    REPORT_HEALTH: ReportBody,
    RESULTS_METHOD: _ResultBatch,
    STREAM_METHOD: StreamCall,
    SUBSCRIBE: SubscribeBody,
    _LOOKUP_METHOD: _Query,
    _NEAREST_METHOD: _Query,
    _THERE: None,
    address_search.METHOD: str,
    clock.METHOD: None,
    home_view.METHOD: home_view._Question,  # noqa: SLF001 - what it has is private to its room
    recursive.METHOD: recursive._LookupRequest,  # noqa: SLF001
    vetting.METHOD: None,
}
"""The form of each method's body, for all that a node serves: a test fails for one that isn't here."""

ANSWERS: Final[dict[str, Any]] = {
    COMPARE: CompareAnswer,
    COMPARE_RANGES: RangesAnswer,
    ENTER: PutAnswer,
    EXCEPTIONS: ExceptionsPage,
    GET_METHOD: bytes | None,
    HOLDS: HoldsAnswer,
    LIST: IndexPage,
    LISTS: ListsAnswer,
    PASSED_ON: PassedOnAnswer,
    PUT: PutAnswer,
    READ: StatePage,
    READ_WATCHED: StatePage,
    REPLICATE: PutAnswer,
    SUBSCRIBE: SubscribeAnswer,
    _LOOKUP_METHOD: list[KnownMember],
    _NEAREST_METHOD: list[KnownMember],
    address_search.METHOD: list[str],
    clock.METHOD: int,
    home_view.METHOD: home_view._ViewAnswer,  # noqa: SLF001
    recursive.METHOD: recursive._LookupAnswer,  # noqa: SLF001
}
"""What a node is answered with that asks; anything where there is none."""

FUNCTIONS: Final = {
    name: tuple(form for argument, form in get_type_hints(function).items() if argument != "return")
    for name, function in vars(RegistryService).items()
    if not name.startswith("_") and callable(function)
}
"""The types of the arguments of the service `registry`, by function."""
VETTING: Final = vetting.METHOD
TIME: Final = clock.METHOD
OPENING: Final = METHODS[Purpose.OPENING]
SEALED: Final = METHODS[Purpose.REQUEST]
