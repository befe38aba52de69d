"""Our service `registry` answers as the original's, but where that has a fault that ours mends.

A host signs other bytes here than there (docs/design.md, original's fault 1), so each side gets a signature of its own,
and these aren't compared.
"""

from __future__ import annotations

import random
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aqua_compat.schema.interface import SERVICE_FUNCTIONS
from aqua_compat.schema.json_codec import from_json, to_json
from overlay.identity import Identity
from registry.errors import RegistryError
from registry.service import RegistryService
from registry.settings import RegistrySettings
from tests.oracle.originals import TIME, Origin, Original, as_text
from tests.unit.registry.builders import NODE, NOW, identity, open_service

Json = Any
WEIGHT = ("trust-graph", "get_weight")
LABELS = ("web", "mail", "näme", "")
VALUES = ("", "tcp://192.0.2.1:7", "ü" * 40)

numbers = iter(range(20_000, 1_000_000))


class Both:
    """The original and ours, beside each other, on one host."""

    def __init__(self, its: Original, ours: RegistryService) -> None:
        self.its = its
        self.service = ours
        self.now = NOW

    async def ours(self, function: str, *arguments: Json, caller: Identity = NODE) -> Json:
        forms = SERVICE_FUNCTIONS[function]
        assert len(forms) == len(arguments)
        values = {name: from_json(form, name, value) for (name, form), value in zip(forms, arguments, strict=True)}
        return to_json(await getattr(self.service.on_behalf_of(caller.peer_id), function)(**values))

    def original(self, function: str, *arguments: Json, caller: Identity = NODE) -> Json:
        host, origins = NODE.peer_id, []
        for _, form in SERVICE_FUNCTIONS[function]:
            origins.append([Origin(*(WEIGHT if form == "WeightResult" else TIME), host)])
        return self.its.call(function, *arguments, caller=caller.peer_id, host=host, origins=origins)

    async def same(self, function: str, *arguments: Json, caller: Identity = NODE) -> Json:
        """The answer of both, without hosts' signatures."""
        ours = comparable(await self.ours(function, *arguments, caller=caller))
        its = comparable(self.original(function, *arguments, caller=caller))
        assert ours == its, (function, arguments)
        return ours

    async def signed(self, signer: Identity, function: str, *arguments: Json) -> list[int]:
        """What `signer` signs of the bytes that both tell."""
        return list(signer.sign(bytes(await self.same(function, *arguments))))

    async def key(self, owner: Identity, label: str, created: int, challenge: list[int] | None = None) -> Json:
        fields = [label, [owner.peer_id], created, challenge or [], "none" if challenge else ""]
        signature = await self.signed(owner, "get_key_bytes", *fields)
        return {
            "id": await self.same("get_key_id", label, owner.peer_id),
            "label": label,
            "owner_peer_id": owner.peer_id,
            "timestamp_created": created,
            "challenge": challenge or [],
            "challenge_type": fields[-1],
            "signature": signature,
        }

    async def register(self, key: Json) -> Json:
        fields = ("timestamp_created", "challenge", "challenge_type", "signature")
        arguments = (key["label"], [key["owner_peer_id"]], *(key[field] for field in fields))
        return await self.same("register_key", *arguments, weight(key["owner_peer_id"]), self.now)

    async def metadata(
        self, key_id: str, issuer: Identity, host: Identity, issued: int, value: str, solution: list[int]
    ) -> Json:
        relay_id, service_id = [identity(9).peer_id], ["service"]
        arguments = (key_id, issuer.peer_id, issued, value, host.peer_id, relay_id, service_id, solution)
        signature = await self.signed(issuer, "get_record_metadata_bytes", *arguments)
        return await self.same("create_record_metadata", *arguments, signature)

    async def put(self, metadata: Json, issuer: Identity, host: Identity, created: int, *, forged: bool) -> Json:
        answers = []
        for ask in (self.ours, self.original):
            bytes_ = ask("get_record_bytes", metadata, created)
            bytes_ = bytes_ if isinstance(bytes_, list) else await bytes_
            signature = [1] * 64 if forged else list(host.sign(bytes(bytes_)))
            answer = ask("put_record", metadata, created, signature, weight(issuer.peer_id), self.now, caller=issuer)
            answers.append(comparable(answer if isinstance(answer, dict) else await answer))
        assert answers[0] == answers[1], metadata
        return answers[0]

    async def end(self, key_id: str, issuer: Identity, host: Identity, issued: int) -> Json:
        arguments = (key_id, issuer.peer_id, host.peer_id, issued, [])
        signature = await self.signed(issuer, "get_tombstone_bytes", *arguments)
        return await self.same("add_tombstone", *arguments, signature, self.now, caller=issuer)

    async def compare(self, key_id: str) -> None:
        await self.same("get_key_metadata", key_id)
        await self.same("get_records", key_id, self.now)
        await self.same("get_tombstones", key_id, self.now)


def weight(peer_id: str) -> Json:
    return {"success": True, "weight": 0, "peer_id": peer_id, "error": ""}


def comparable(answer: Json) -> Json:
    """Without hosts' signatures, lists of states in one order (there it is that of rows), and of bad signatures only
    that they are: there the text has them, and of a record's names its host as who issued it."""
    if isinstance(answer, dict) and answer.get("success") and isinstance(answer.get("result"), list):
        states = [{**state, "signature": []} if "metadata" in state else state for state in answer["result"]]
        return {**answer, "result": sorted(states, key=as_text)}
    if isinstance(answer, dict) and answer.get("success") is False:
        error = re.sub(r"(Invalid [a-z ]*signature for key_id \w+).*", r"\1", answer["error"])
        return {"success": False, "error": error}
    return answer


@pytest.fixture
async def both(its_registry: Original, tmp_path: Path) -> AsyncIterator[Both]:
    async with open_service(tmp_path, RegistrySettings(clock_skew=0)) as service:
        yield Both(its_registry, service)


def new_peers(count: int) -> list[Identity]:
    return [identity(next(numbers)) for _ in range(count)]


async def test_ids_and_what_is_signed_are_the_same(both: Both) -> None:
    for peer in new_peers(5):
        for label in LABELS:
            key = await both.key(peer, label, NOW, [0, 255])
            await both.metadata(key["id"], peer, peer, NOW, VALUES[2], [1])
            await both.same("get_tombstone_bytes", key["id"], peer.peer_id, peer.peer_id, NOW, [3])


async def test_a_resource_is_registered_resolved_and_ended_alike(both: Both) -> None:
    owner, issuer, host = new_peers(3)
    key = await both.key(owner, "web", NOW)
    await both.compare(key["id"])
    assert (await both.register(key))["success"]
    metadata = await both.metadata(key["id"], issuer, host, NOW, VALUES[1], [])
    for forged in (True, False, False):
        assert (await both.put(metadata, issuer, host, NOW, forged=forged))["success"] is not forged
    await both.compare(key["id"])
    both.now += 5
    assert (await both.end(key["id"], issuer, host, NOW + 5))["success"]
    await both.compare(key["id"])
    assert not (await both.put(metadata, issuer, host, NOW, forged=False))["success"]
    await both.compare(key["id"])


async def test_random_calls(both: Both) -> None:
    await random_calls(both, seed=1, calls=40)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("seed", range(100, 120))
async def test_many_random_calls(both: Both, seed: int) -> None:
    await random_calls(both, seed, calls=300)


async def random_calls(both: Both, seed: int, calls: int) -> None:
    """Calls of few peers on few resources, whose times are all different (docs/design.md, original's fault 11)."""
    chance = random.Random(seed)
    peers, labels = new_peers(4), LABELS[:2]
    seconds = iter(chance.sample(range(NOW - 2_000, NOW), 2_000))
    keys = []
    for _ in range(calls):
        both.now += chance.choice((0, 0, 3))
        by, host, kind = chance.choice(peers), chance.choice(peers), chance.random()
        time = both.now + 7 if chance.random() < 0.05 else next(seconds)
        if not keys or kind < 0.25:
            key = await both.key(by, chance.choice(labels), time, chance.choice(([], [1, 2])))
            if chance.random() < 0.1:
                key["signature"] = [1] * 64
            if kind < 0.1:
                await both.same("republish_key", key, weight(chance.choice((by, by, host)).peer_id), both.now)
            else:
                await both.register(key)
            keys.append(touched := key["id"])
        elif kind < 0.7:
            touched = chance.choice(keys)
            metadata = await both.metadata(touched, by, host, time, chance.choice(VALUES), [])
            if chance.random() < 0.1:
                metadata["value"] = "forged"
            await both.put(metadata, by, host, time, forged=chance.random() < 0.1)
        else:
            touched = chance.choice(keys)
            await both.end(touched, by, host, time)
        await both.compare(touched)
    for key_id in set(keys):
        await both.compare(key_id)


async def test_what_both_refuse(both: Both) -> None:
    owner, other = new_peers(2)
    key = await both.key(owner, "web", NOW)
    await both.same("republish_key", key, weight(other.peer_id), both.now)
    await both.same("republish_key", key, {**weight(owner.peer_id), "success": False}, both.now)
    await both.same("merge_keys", [])
    await both.same("get_key_metadata", "unknown")
    await both.same("get_records", "unknown", both.now)
    await both.same("republish_records", [], [], both.now)
    with pytest.raises(RegistryError):
        await both.ours("get_key_bytes", "web", ["x"], NOW, [], "")


async def test_the_id_of_a_label_that_names_no_owner(both: Both) -> None:
    for label in LABELS:
        await both.same("get_key_id", label, "")
