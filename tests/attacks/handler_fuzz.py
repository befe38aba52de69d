"""Well-formed calls with odd contents to all that a node serves: `python -m tests.attacks.handler_fuzz --count 100000`.

A whole node runs here, and strangers, members and light clients, make calls, notices, frames, gossip and questions to
its routing table, whose values are of the right types (`odd_values`), and answer the node's own calls alike. A fault is
a task of the node that ends it, an exception in a handler, a line in the log that says that something was unforeseen, a
turn of over 20 ms of CPU, or an honest client that isn't served in the end.
"""

from __future__ import annotations

import argparse
import gc
import logging
import random
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args, get_type_hints
from unittest import mock

import cbor2
import structlog
import trio
from google.protobuf.message import EncodeError
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.kad_dht.pb.kademlia_pb2 import Message

from aqua_compat.rpc.dispatch import functions_of
from aqua_compat.rpc.server import CALL_METHOD, STREAM_METHOD, ServiceServer
from aqua_compat.settings import Settings
from overlay.errors import CallFailed, OverlayError, StreamBroken
from overlay.identity import Identity
from overlay.libp2p.host import Host, open_host
from overlay.libp2p.kad_messages import encoded as kad_encoded
from overlay.presence import messages as presence
from overlay.relaying.relayed_rpc import RelayedRpc
from overlay.relaying.secure_channel import PendingSession, SecureChannelError, SecureSession
from overlay.rpc.framing import encode_item
from overlay.rpc.links import Links
from overlay.rpc.protocol import Bye, Cancel, Failed, Hello, Keep, Notice, Pong, Refused, Request, Response, Stay
from overlay.settings import CallLimits, OverlaySettings
from overlay.tasks import TaskStatus
from registry.client.node_operations import SERVICE
from tests.attacks.handler_forms import ANSWERS, FUNCTIONS, OPENING, REQUESTS, SEALED, TIME, VETTING
from tests.attacks.honest import honest_clients
from tests.attacks.http_fuzz import MOST_FAULTS, Turns
from tests.attacks.odd_values import OddValues
from tests.attacks.victim import Stranger
from tests.unit.registry.builders import identity

AT_ONCE: Final = 8
CALLS_OF_ONE: Final = 150  # until a stranger gives way to the next one, whose budgets are whole
STRANGERS: Final = 64
WARMING_UP: Final = 150  # inputs
ROUNDS: Final = 5
TIMEOUT: Final = 0.3  # seconds that a call may wait
LISTEN: Final = ("/ip4/127.0.0.1/tcp/0",)
LINK: Final = OverlaySettings().protocol_id
PRODUCTS: Final = (Hello, Pong, Bye, Failed, Refused, Response, Cancel, Keep, Stay)
NOTED: Final = ("crashed", "unexpected", "failed", "unforeseen")


class Tried(NamedTuple):
    """What became of the inputs: how many there were, answers by method and kind, what was wrong, turns that took too
    long, and the slowest turn in seconds of CPU."""

    tried: int
    answers: Counter[tuple[str, str]]
    faults: list[str]
    slow: list[str]
    slowest: float


class _Run:
    """What all nodes and strangers of one run share."""

    def __init__(self, count: int, seed: int, first: int) -> None:
        self.seed = seed
        self.numbers = iter(range(first, first + count))
        self.answers: Counter[tuple[str, str]] = Counter()
        self.faults: list[str] = []
        self.last: deque[str] = deque(maxlen=3 * AT_ONCE)
        self.now = int(time.time())
        self.node_root: trio.lowlevel.Task | None = None
        self.turns = Turns(self._is_of_node)
        self._are_of_node: dict[trio.lowlevel.Task, bool] = {}

    def fault(self, what: str) -> None:
        """Notes what is wrong, with what was tried last."""
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(f"{what}, after\n  " + "\n  ".join(self.last))

    def _is_of_node(self, task: trio.lowlevel.Task) -> bool:
        found = self._are_of_node.get(task)
        if found is None:
            above, found = task, False
            while above is not None and not found:
                found = above is self.node_root
                above = above.parent_nursery.parent_task if above.parent_nursery is not None else None  # type: ignore[assignment]
            if len(self._are_of_node) > 10_000:
                self._are_of_node.clear()
            self._are_of_node[task] = found
        return found


class _Served:
    """The methods that a node serves, on links and for what comes through relays, and the functions of its services,
    each with the types of its arguments."""

    def __init__(self) -> None:
        self.direct: list[str] = []
        self.relayed: list[str] = []
        self.functions: dict[tuple[str, str], tuple[Any, ...]] = {}

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note what is served within the block."""

        def noting(kind: type, methods: list[str]) -> Any:
            serve = kind.serve  # type: ignore[attr-defined]

            def note(of: object, method: str, handler: object) -> None:
                methods.append(method)
                serve(of, method, handler)

            return mock.patch.object(kind, "serve", note)

        add = ServiceServer.add

        def note_service(of: ServiceServer, service_id: str, service: object, limits: Any = None) -> None:
            for name, function in functions_of(service).items():
                self.functions[service_id, name] = tuple(
                    form for argument, form in get_type_hints(function.call).items() if argument != "return"
                )
            add(of, service_id, service, limits)

        with (
            noting(Links, self.direct),
            noting(RelayedRpc, self.relayed),
            mock.patch.object(ServiceServer, "add", note_service),
        ):
            yield


async def try_calls(count: int, seed: int, folder: Path, first: int = 0) -> Tried:
    """Tries so many inputs on a node in this process, and on a new one each time that one ended."""
    run = _Run(count, seed, first)
    await _warm_up(folder)
    gc.collect()
    gc.freeze()
    gc.disable()  # strangers collect the garbage: most of it is theirs
    trio.lowlevel.add_instrument(run.turns)
    try:
        with _log_read(run):
            for number in range(MOST_FAULTS):
                if await _try_on_one(run, folder / f"{number}"):
                    break
    finally:
        trio.lowlevel.remove_instrument(run.turns)
        gc.enable()
    return Tried(count, run.answers, run.faults, run.turns.slow, run.turns.slowest)


async def _warm_up(folder: Path) -> None:
    """What is imported and cached by the first of its kind isn't the doing of who sends it."""
    run = _Run(WARMING_UP, 0, 0)
    with _log_read(run):
        await _try_on_one(run, folder / "warming up")


@contextmanager
def _log_read(run: _Run) -> Iterator[None]:
    """Has what the node logs looked at, and dropped."""

    def read(_: object, method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
        text = str(event.get("event"))
        is_fault = method in ("error", "critical", "exception") or bool(event.get("exc_info"))
        if is_fault or (method == "warning" and any(word in text for word in NOTED)):
            shown = {name: value for name, value in event.items() if name != "exc_info"}
            run.fault(f"the node logged {shown}"[:500] + f", {_cause(sys.exc_info()[1])}")
        raise structlog.DropEvent

    before = structlog.get_config()["processors"]
    structlog.configure(processors=[read], wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    try:
        yield
    finally:
        structlog.configure(processors=before)


def _cause(error: BaseException | None) -> str:
    """An exception, and where it was raised."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if error is None:
        return "no exception"
    frames: list[str] = []
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        frames.append(f"{Path(code.co_filename).name}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return f"{error!r}"[:300] + f" at {' > '.join(frames[-6:])}"


async def _try_on_one(run: _Run, folder: Path) -> bool:
    """Whether all inputs were tried on it; False when it ended."""
    from aqua_compat.api.full_node import identity_in, open_full_node

    served, ended = _Served(), trio.Event()
    await trio.Path(folder).mkdir(parents=True)

    async def run_node(*, task_status: TaskStatus[str]) -> None:
        run.node_root = trio.lowlevel.current_task()
        try:
            settings = Settings(overlay=OverlaySettings(listen=LISTEN))
            async with AsyncExitStack() as stack:
                with served.noted():
                    running = open_full_node(identity_in(folder), settings, folder)
                    node, _ = await stack.enter_async_context(running)
                task_status.started(node.peer.addresses()[0])
                await trio.sleep_forever()
        except Exception as error:
            run.fault(f"the node ended: {_cause(error)}")
            ended.set()

    async with trio.open_nursery() as nursery:
        address = await nursery.start(run_node)
        unknown = {*served.direct, *served.relayed} - REQUESTS.keys()
        if unknown:
            run.fault(f"methods of which no form is known: {sorted(unknown)}")
        async with trio.open_nursery() as ending:

            async def end_with_node() -> None:
                await ended.wait()
                ending.cancel_scope.cancel()

            ending.start_soon(end_with_node)
            try:
                await _among_honest(run, address, served)
            except* (AssertionError, OSError, OverlayError) as error:
                run.fault(f"an honest client isn't served: {_cause(error)}")
            ending.cancel_scope.cancel()
        nursery.cancel_scope.cancel()
    return not ended.is_set()


async def _among_honest(run: _Run, address: str, served: _Served) -> None:
    async with honest_clients(address, 2) as clients:
        async with trio.open_nursery() as senders:
            for place in range(AT_ONCE):
                senders.start_soon(_send_some, run, address, served, clients.resources, place)
        for _ in range(ROUNDS):  # until it is known that the strangers are gone
            await clients.round()
            if not (failed := clients.take().failed):
                return
        run.fault(f"{failed} of an honest client's 3 requests failed in the end")


async def _send_some(run: _Run, address: str, served: _Served, resources: Sequence[str], place: int) -> None:
    """Sends inputs, as one stranger after the other, until all were sent."""
    next_one = place
    while True:
        try:
            async with _linked(run, address, next_one, resources) as sender:
                sender.served = served
                for _ in range(CALLS_OF_ONE):
                    number = next(run.numbers, None)
                    if number is None:
                        return
                    await sender.send(number)
                    if sender.stranger.ended:
                        break
        except* (OverlayError, StreamBroken, trio.BrokenResourceError, trio.TooSlowError):
            await trio.sleep(0.05)  # it was sent away
        next_one += AT_ONCE
        gc.collect()


@asynccontextmanager
async def _linked(run: _Run, address: str, number: int, resources: Sequence[str]) -> AsyncIterator[_Sender]:
    """A stranger's link to the node: every second one says that it is a member."""
    own = [identity(90_000 + (number + other) % STRANGERS) for other in range(0, 3 * AT_ONCE, AT_ONCE)]
    is_member = number % 2 == 1
    settings = OverlaySettings(listen=LISTEN if is_member else (), calls=CallLimits(ping_interval=3600))
    answers = random.Random(f"{run.seed}/answers/{number}")
    node = address.rpartition("/p2p/")[2]
    peers = [identity(90_000 + other).peer_id for other in range(STRANGERS)]

    def odd_values(randomness: random.Random) -> OddValues:
        return OddValues(randomness, own, peers, resources, run.now, node)

    async with open_host(own[0], settings) as host, trio.open_nursery() as nursery:

        def answer(request: Request) -> bytes:
            if request.method == VETTING:
                return encode_item(host.listen_addresses())
            if request.method == TIME:  # several that lie have a node sign nothing
                return encode_item(int(time.time() * 1000))
            return _encoded(odd_values(answers).of(ANSWERS.get(request.method, Any)))

        async def accept(_: str, stream: Any) -> None:
            await trio.sleep_forever()

        host.set_stream_handler(LINK, accept)
        with trio.fail_after(10):
            await host.connect(address, timeout=10)
            stream = await host.open_stream(node, LINK)
            stranger = Stranger(own[0], stream, answer)
            nursery.start_soon(_listened, stranger)
            await stranger.say(Hello(0, is_member, random.randbytes(8)))
            await stranger.greeted.wait()
        yield _Sender(run, host, stranger, own, node, odd_values)
        nursery.cancel_scope.cancel()


async def _listened(stranger: Stranger) -> None:
    try:
        await stranger.listen()
    except (StreamBroken, trio.BrokenResourceError, OSError):
        stranger.ended = True


class _Sender:
    """A stranger who sends inputs."""

    def __init__(
        self, run: _Run, host: Host, stranger: Stranger, own: Sequence[Identity], node: str, odd_values: Any
    ) -> None:
        self.served = _Served()
        self.stranger = stranger
        self._run = run
        self._host = host
        self._own = own
        self._node = node
        self._odd_values = odd_values
        self._session: SecureSession | None = None

    async def send(self, number: int) -> None:
        """Sends one input, which the number and the seed tell but for whose it is."""
        chosen = random.Random(f"{self._run.seed}/{number}")
        odd: OddValues = self._odd_values(chosen)
        self._run.turns.trying.add(number)
        kinds = (self._call, self._notice, self._relayed_call, self._frame, self._kad, self._identify, self._gossip)
        kind = chosen.choices(kinds, (70, 14, 6, 3, 3, 1, 3))[0]
        try:
            with trio.move_on_after(5):
                await kind(number, chosen, odd)
        except (StreamBroken, CallFailed, SecureChannelError, trio.BrokenResourceError):
            await trio.lowlevel.checkpoint()
        self._run.turns.trying.discard(number)

    async def _call(self, number: int, chosen: random.Random, odd: OddValues) -> None:
        method = chosen.choice(self.served.direct)
        body = _body(method, self.served, chosen, odd)
        self._note(number, method, body)
        self._count(method, await self._answered(method, body))

    async def _answered(self, method: str, body: object) -> Response | Refused | Failed | None:
        with trio.move_on_after(4):
            return await self.stranger.call(method, _encoded(body), TIMEOUT)
        return None  # type: ignore[unreachable]

    async def _notice(self, number: int, chosen: random.Random, odd: OddValues) -> None:
        said = [odd.of(chosen.choice(get_args(presence.Message))) for _ in range(chosen.choice((1, 1, 2, 5)))]
        self._note(number, presence.TOPIC, said)
        await self.stranger.say(Notice(presence.TOPIC, _encoded(said)))
        self._count(presence.TOPIC, None)
        await trio.sleep(0.001)

    async def _relayed_call(self, number: int, chosen: random.Random, odd: OddValues) -> None:
        if self._session is None:
            pending = PendingSession(self._own[0], self._node, time.time())
            answer = await self._answered(OPENING, pending.sealed)
            if not isinstance(answer, Response):
                return
            self._session = pending.accepted(cbor2.loads(answer.body))
        method = chosen.choice(self.served.relayed)
        body, expires = _body(method, self.served, chosen, odd), odd.of(float, "expires")
        self._note(number, f"relayed {method}", body)
        counted, sealed = self._session.seal_request(_encoded([method, _encoded(body), expires]))
        self._count(f"relayed {method}", await self._answered(SEALED, _encoded([self._session.id, counted, sealed])))

    async def _frame(self, number: int, chosen: random.Random, odd: OddValues) -> None:
        frame = odd.of(chosen.choice(PRODUCTS))
        self._note(number, "a frame", frame)
        encoded = _encoded(frame)
        await self.stranger.send(len(encoded).to_bytes(4, "big") + encoded)
        self._count("a frame", None)
        await trio.sleep(0.001)

    async def _kad(self, number: int, chosen: random.Random, odd: OddValues) -> None:
        message = Message()
        message.type = chosen.choice([*Message.MessageType.values(), Message.FIND_NODE])  # type: ignore[assignment]
        message.key = chosen.choice((odd.peer_id().encode(), odd.of(bytes), chosen.randbytes(32)))
        for _ in range(chosen.choice((0, 0, 1, 30))):
            entry = chosen.choice((message.closerPeers, message.providerPeers)).add()
            entry.id = chosen.choice((odd.peer_id().encode(), odd.of(bytes)))
            entry.addrs.append(chosen.choice((odd.of(bytes), b"\4\x7f\0\0\1\6\0\1")))
        self._note(number, "kad", message)
        await self._on_stream(OverlaySettings().kad_protocol_id, kad_encoded(message))

    async def _identify(self, number: int, chosen: random.Random, odd: OddValues) -> None:
        told = Identify()
        told.protocol_version, told.agent_version = "x", chosen.choice(("", "x" * 3000, "\0"))
        told.public_key, told.observed_addr = odd.of(bytes), odd.of(bytes)
        told.listen_addrs.extend(odd.of(bytes) for _ in range(chosen.choice((0, 1, 50))))
        told.protocols.extend(chosen.choices(("", "/x", "/ipfs/id/1.0.0", LINK), k=chosen.choice((0, 1, 50))))
        told.signedPeerRecord = odd.of(bytes, "sealed")
        self._note(number, "identify", told)
        encoded = kad_encoded(told)  # type: ignore[arg-type]
        await self._on_stream(chosen.choice(("/ipfs/id/push/1.0.0", "/ipfs/id/1.0.0", "/ipfs/ping/1.0.0")), encoded)

    async def _on_stream(self, protocol_id: str, sent: bytes) -> None:
        with suppress(OverlayError, EncodeError):
            stream = await self._host.open_stream(self._node, protocol_id)
            await stream.write(sent)
            with trio.move_on_after(0.2):
                await stream.read_some(65_536)
            await stream.reset()
        self._count(protocol_id, None)

    async def _gossip(self, number: int, chosen: random.Random, odd: OddValues) -> None:
        topic, payload = odd.key_id(), chosen.choice((odd.of(bytes), _encoded(odd.of(Any)), odd.announcement()))
        self._note(number, f"gossip on {topic!r}", payload)
        with suppress(ValueError):
            await self._host.gossip.subscribe(topic)
            await self._host.gossip.publish(topic, payload)
        self._count("gossip", None)

    def _note(self, number: int, method: str, body: object) -> None:
        self._run.last.append(f"input {number} of {self.stranger.peer_id[-6:]}: {method} {body!r}"[:600])

    def _count(self, method: str, answer: Response | Refused | Failed | None) -> None:
        kind = answer.code if isinstance(answer, Refused) else type(answer).__name__
        if isinstance(answer, Refused) and answer.code == "internal":
            self._run.fault(f"a handler of {method} raised")
        self._run.answers[method, kind] += 1


def _body(method: str, served: _Served, chosen: random.Random, odd: OddValues) -> object:
    """What a method is called with."""
    if method == SERVICE.name:
        function = chosen.choice((*FUNCTIONS, "0"))
        arguments = [odd.of(form) for form in FUNCTIONS.get(function, (int,))]
        return [0.2, [function, arguments]]
    if method in (CALL_METHOD, STREAM_METHOD):
        service, function = chosen.choice((*served.functions,))
        arguments = [odd.of(form) for form in served.functions[service, function]]
        if chosen.random() < 0.1:
            arguments = [odd.argument() for _ in range(chosen.choice((0, 1, 2, 3)))]
        path = "" if chosen.random() < 0.8 else odd.peer_id()[:64]
        further = [odd.of(bytes)[:16].ljust(16), path] if method == STREAM_METHOD else []
        return [service, function, arguments, *further]
    return odd.of(REQUESTS[method])


def _encoded(body: object) -> bytes:
    try:
        return cbor2.dumps(body)
    except (UnicodeEncodeError, OverflowError):
        return cbor2.dumps(None)


def main() -> int:
    """Whether there was any fault."""
    arguments = argparse.ArgumentParser(prog="python -m tests.attacks.handler_fuzz", description=__doc__)
    arguments.add_argument("--count", type=int, default=100_000)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--first", type=int, default=0, help="number of the first input")
    arguments.add_argument("--details", action="store_true", help="show what was answered, by method")
    given = arguments.parse_args()
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        tried = trio.run(try_calls, given.count, given.seed, Path(folder), given.first)
    print(
        f"{tried.tried} inputs, {time.process_time() - began:.0f} s of CPU, slowest turn {tried.slowest * 1000:.1f} ms"
    )
    if given.details:
        for (method, kind), count in sorted(tried.answers.items()):
            print(f"{method:28} {kind:28} {count:7}")
    print("\n".join([*tried.faults, *tried.slow]) or "no fault")
    return 1 if tried.faults or tried.slow else 0


if __name__ == "__main__":
    sys.exit(main())
