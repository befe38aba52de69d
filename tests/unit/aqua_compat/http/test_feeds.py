"""Whoever follows a feed knows in the end what there is, wherever it broke off and however often."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self, cast

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from aqua_compat.http.feeds import HEARTBEAT, KEPT_EVENTS, Feed
from aqua_compat.settings import HttpSettings
from overlay.identity import Identity
from registry.health.health_reader import RecordHealth
from registry.health.state import Health, HealthState
from registry.model.signing import key_id_of
from registry.model.values import Record, RecordMetadata, Slot
from registry.watch.watch_event import EventKind, WatchEvent
from tests.unit.aqua_compat.http.running import Running, running_server

PEERS = [Identity.from_seed(bytes([number]) * 32).peer_id for number in range(6)]


def a_record(peer: int, value: str) -> Record:
    metadata = RecordMetadata("key", PEERS[0], PEERS[peer], 1, b"", value, (), (), b"")
    return Record(metadata, 1, b"")


class ScriptedWatch:
    """Tells the events that a test sends."""

    exists = True

    def __init__(self) -> None:
        self.healths: dict[Slot, RecordHealth] = {}
        self.send, self._receive = trio.open_memory_channel[WatchEvent](10_000)

    def health_of(self, record: Record) -> RecordHealth | None:
        return self.healths.get(record.slot)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WatchEvent:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None


class Follower:
    """A client that knows what the events told it."""

    def __init__(self) -> None:
        self.shown: dict[str, str] = {}
        self.states: dict[str, str] = {}  # as the last snapshot told them
        self.last_id = ""
        self.snapshots = 0

    def take(self, text: bytes) -> None:
        fields = dict(line.split(": ", 1) for line in text.decode().strip().splitlines() if not line.startswith(":"))
        if not fields:
            return
        self.last_id = fields["id"]
        event = json.loads(fields["data"])["result"]
        assert event["event"] == fields["event"]
        if event["event"] == "snapshot":
            self.snapshots += 1
            self.shown = {each["metadata"]["peer_id"]: each["metadata"]["value"] for each in event["records"]}
            told = [each for each in event["records"] if "health" in each]
            self.states = {each["metadata"]["peer_id"]: each["health"]["state"] for each in told}
        elif event["event"] in ("removed", "expired"):
            del self.shown[event["record"]["metadata"]["peer_id"]]
        else:
            self.shown[event["record"]["metadata"]["peer_id"]] = event["record"]["metadata"]["value"]


class Script:
    """A feed, and what its resource has."""

    def __init__(self, seed: int, *, include_down: bool = False) -> None:
        self.random = random.Random(seed)
        self.watch = ScriptedWatch()
        self.feed = Feed(cast("Any", self.watch), include_down=include_down)
        self.shown: dict[str, str] = {}
        self._count = 0

    def change(self) -> None:
        self._count += 1
        peer, value = self.random.randrange(len(PEERS)), str(self._count)
        if self.random.random() < 0.03:
            records = tuple(a_record(PEERS.index(each), text) for each, text in self.shown.items())
            self.watch.send.send_nowait(WatchEvent(EventKind.SNAPSHOT, records=records))
            return
        if PEERS[peer] in self.shown and self.random.random() < 0.4:
            kind = self.random.choice([EventKind.REMOVED, EventKind.EXPIRED])
            del self.shown[PEERS[peer]]
        else:
            kind = EventKind.UPDATED if PEERS[peer] in self.shown else EventKind.ADDED
            self.shown[PEERS[peer]] = value
        self.watch.send.send_nowait(WatchEvent(kind, a_record(peer, value)))

    async def follow(self, follower: Follower, events: int) -> None:
        """Has a client take so many events at most, from where it was, as far as there are some."""
        pieces = self.feed.after(follower.last_id)
        text = b""
        for _ in range(events):
            with trio.move_on_after(0.1) as patience:
                text += await anext(pieces)
            if patience.cancelled_caught:
                break
            if text.endswith(b"\n\n"):
                follower.take(text)
                text = b""
        await pieces.aclose()


@pytest.mark.parametrize("seed", range(30))
async def test_who_breaks_off_anywhere_knows_in_the_end_what_there_is(seed: int, autojump_clock) -> None:
    script, followers = Script(seed), [Follower() for _ in range(4)]
    script.watch.send.send_nowait(WatchEvent(EventKind.SNAPSHOT))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script.feed.run)
        for _ in range(25):
            for _ in range(script.random.choice([0, 1, 3, 20])):
                script.change()
            await trio.testing.wait_all_tasks_blocked()
            await script.follow(script.random.choice(followers), script.random.randrange(12))
        for follower in followers:
            await script.follow(follower, 10_000)
            assert follower.shown == script.shown
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("missed", "snapshots"), [(KEPT_EVENTS, 1), (KEPT_EVENTS + 1, 2)])
async def test_what_was_missed_is_told_as_long_as_it_is_kept(missed: int, snapshots: int, autojump_clock) -> None:
    script, follower = Script(1), Follower()
    script.watch.send.send_nowait(WatchEvent(EventKind.SNAPSHOT))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script.feed.run)
        await script.follow(follower, 1)
        for number in range(missed):
            script.watch.send.send_nowait(WatchEvent(EventKind.UPDATED, a_record(number % 6, str(number))))
        await trio.testing.wait_all_tasks_blocked()
        await script.follow(follower, 10_000)
        assert follower.snapshots == snapshots
        assert follower.shown[PEERS[(missed - 1) % 6]] == str(missed - 1)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("known", ["", "nonsense", "0123456789ab-1", "-", "x-99999999999999999999999"])
async def test_an_id_that_isnt_the_feeds_gets_a_snapshot(known: str, autojump_clock) -> None:
    script, follower = Script(1), Follower()
    follower.last_id = known
    script.watch.send.send_nowait(WatchEvent(EventKind.SNAPSHOT, records=(a_record(1, "here"),)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script.feed.run)
        await script.follow(follower, 1)
        assert (follower.snapshots, follower.shown) == (1, {PEERS[1]: "here"})
        nursery.cancel_scope.cancel()


async def test_a_later_snapshot_leaves_out_what_is_down_or_doesnt_pass_as_a_first_one_does(autojump_clock) -> None:
    script, follower, late = Script(1), Follower(), Follower()
    here = tuple(a_record(number, "here") for number in range(3))
    down, critical = RecordHealth(is_up=False), RecordHealth(health=Health(HealthState.CRITICAL, 5, "no disk"))
    script.watch.send.send_nowait(WatchEvent(EventKind.SNAPSHOT, records=here))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script.feed.run)
        script.watch.send.send_nowait(WatchEvent(EventKind.DOWN, here[0], health=down))
        script.watch.send.send_nowait(WatchEvent(EventKind.HEALTH, here[1], health=critical))
        await trio.testing.wait_all_tasks_blocked()
        await script.follow(follower, 10)
        assert follower.shown == {PEERS[2]: "here"}
        script.watch.send.send_nowait(WatchEvent(EventKind.UP, here[0], health=RecordHealth()))
        script.watch.send.send_nowait(WatchEvent(EventKind.HEALTH, here[1], health=RecordHealth()))
        await trio.testing.wait_all_tasks_blocked()
        for each in (follower, late):
            await script.follow(each, 10)
            assert each.shown == dict.fromkeys(PEERS[:3], "here")
        assert follower.snapshots == 1
        nursery.cancel_scope.cancel()


async def test_a_later_snapshot_of_all_has_what_is_down_or_doesnt_pass(autojump_clock) -> None:
    script, follower = Script(1, include_down=True), Follower()
    here = tuple(a_record(number, "here") for number in range(2))
    down, critical = RecordHealth(is_up=False), RecordHealth(health=Health(HealthState.CRITICAL, 5, "no disk"))
    script.watch.send.send_nowait(WatchEvent(EventKind.SNAPSHOT, records=here))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script.feed.run)
        script.watch.send.send_nowait(WatchEvent(EventKind.DOWN, here[0], health=down))
        script.watch.send.send_nowait(WatchEvent(EventKind.HEALTH, here[1], health=critical))
        await trio.testing.wait_all_tasks_blocked()
        await script.follow(follower, 10)
        assert (follower.snapshots, follower.shown) == (1, dict.fromkeys(PEERS[:2], "here"))
        nursery.cancel_scope.cancel()


async def test_a_snapshot_tells_how_each_record_is_when_it_is_told(autojump_clock) -> None:
    script, early, late = Script(1, include_down=True), Follower(), Follower()
    here = tuple(a_record(number, "here") for number in range(3))
    critical, warning = (RecordHealth(health=Health(HealthState[state], 5, "")) for state in ("CRITICAL", "WARNING"))
    script.watch.healths = {here[0].slot: RecordHealth(), here[1].slot: critical}
    script.watch.send.send_nowait(WatchEvent(EventKind.SNAPSHOT, records=here))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script.feed.run)
        await script.follow(early, 1)
        assert early.states == {PEERS[0]: "passing", PEERS[1]: "critical"}
        script.watch.healths[here[1].slot] = warning
        await script.follow(late, 1)
        assert late.states == {PEERS[0]: "passing", PEERS[1]: "warning"}
        nursery.cancel_scope.cancel()


async def test_silence_is_filled_so_that_a_dead_client_is_noticed(autojump_clock) -> None:
    script = Script(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script.feed.run)
        pieces = script.feed.after("")
        assert (await anext(pieces)).startswith(b":")
        assert trio.current_time() == HEARTBEAT
        await pieces.aclose()
        nursery.cancel_scope.cancel()


async def test_watchers_share_a_watch_and_go_on_after_a_break(tmp_path: Path) -> None:
    settings = HttpSettings(listen="127.0.0.1:0", max_watches=3)
    async with running_server(tmp_path, settings) as running:
        resource_id = (await running.ask("POST", "/v1/aqua/resources", {"label": "web"})).result["resource_id"]
        target = f"/v1/aqua/resources/{resource_id}"

        async def watching(last_id: str) -> tuple[trio.SocketStream, str]:
            stream = await running.connect()
            ask = f"GET {target}/watch HTTP/1.0\r\nHost: [::1]\r\nLast-Event-ID: {last_id}\r\n\r\n"
            await stream.send_all(ask.encode())
            text = ""
            while "\n\n" not in text.partition("\r\n\r\n")[2]:
                piece = await stream.receive_some(65536)
                assert piece, text
                text += piece.decode()
            return stream, text.partition("\r\n\r\n")[2]

        one, first = await watching("")
        two, same = await watching("")
        assert first == same
        assert running.node.parts.watches.statistics().resources == 1
        assert (await running.ask("POST", f"{target}/records", {"value": "new"})).status == 201
        follower = Follower()
        follower.take(first.encode())
        await one.aclose()
        three, missed = await watching(follower.last_id)
        follower.take(missed.encode())
        assert follower.snapshots == 1
        assert list(follower.shown.values()) == ["new"]

        more = [stream async for stream in until_refused(running, f"{target}/watch")]
        assert len(more) <= 1
        for stream in (two, three, *more):
            await stream.aclose()


async def test_of_many_who_begin_to_watch_at_once_those_without_a_place_are_told_when_to_come_again(
    tmp_path: Path,
) -> None:
    settings = HttpSettings(listen="127.0.0.1:0", max_watches=2)
    async with running_server(tmp_path, settings) as running:
        target = f"/v1/aqua/resources/{key_id_of('none', PEERS[0])}/watch"
        streams = [await running.connect() for _ in range(12)]
        texts = [b""] * len(streams)
        ends: list[int] = []

        async def read(number: int) -> None:
            while piece := await streams[number].receive_some(65536):
                texts[number] += piece
            ends.append(number)

        with capture_logs() as logs:
            async with trio.open_nursery() as nursery:
                for stream in streams:
                    await stream.send_all(f"GET {target} HTTP/1.0\r\nHost: [::1]\r\n\r\n".encode())
                for number in range(len(streams)):
                    nursery.start_soon(read, number)
                with trio.fail_after(20):
                    while (  # noqa: ASYNC110 - nothing tells what has come
                        len(ends) < len(streams) - 2 or sum(b"event: snapshot" in text for text in texts) < 2
                    ):
                        await trio.sleep(0.01)
                assert running.server.watches == 2
                nursery.cancel_scope.cancel()
        refused = [texts[number] for number in ends]
        assert all(b" 503 " in text or text.endswith(b"\nretry: 10000\n\n") for text in refused), refused
        assert any(b"retry: " in text for text in refused), "the test opens them too slowly"
        assert not [log for log in logs if log["log_level"] == "error"]
        for stream in streams:
            await stream.aclose()


async def until_refused(running: Running, target: str) -> AsyncIterator[trio.SocketStream]:
    """Opens watches, three at most, until as many are open as may be."""
    for _ in range(3):
        stream = await running.connect()
        await stream.send_all(f"GET {target} HTTP/1.0\r\nHost: [::1]\r\n\r\n".encode())
        answer = bytes(await stream.receive_some(65536))
        if answer.startswith(b"HTTP/1.1 503 "):
            assert b'"code":"overloaded"' in answer
            await stream.aclose()
            return
        yield stream
    raise AssertionError("nobody was refused")
