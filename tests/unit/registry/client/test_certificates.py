"""Issuers show certificates, and go on under newer ones: over simulated nodes, from callbacks and from files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from overlay.identity import Identity
from overlay.membership.certificate import Certificate
from registry.client.certificate_files import CertificateFiles, UnusableCertificate, read_chain
from registry.client.certified_records import MAX_FOLLOWED
from registry.codes import Code
from registry.model.trusted_issuers import Trusted
from registry.permission.certificate_text import MAX_TEXT, text_of
from registry.permission.edits import Edit, EditKind
from registry.permission.scope import Scope, ScopeKind
from registry.protocol.messages import READ
from registry.quorum.read_machine import ReadOutcome
from registry.watch.watch_event import TRUST, EventKind
from tests.simulation.nodes import SimulatedNode, simulated_nodes
from tests.unit.registry.builders import NOW, a_certificate, a_key, identity, public_key
from tests.unit.registry.client.test_policies import clock, edit, issuers, registered

ROOT = identity(500)


def certificate(
    subject: Identity, owner: Identity, expires_in: int, *, begins_in: int = -60, issuer: Identity = ROOT
) -> Certificate:
    """For all resources of `owner`; times in seconds from now."""
    now = int(clock())
    return a_certificate(
        issuer,
        subject,
        scope=Scope(ScopeKind.ALL, public_key(owner)),
        not_before=now + begins_in,
        expires_at=now + expires_in,
    )


async def closed(owner: SimulatedNode) -> str:
    """The id of a resource where only those register whom ROOT certified."""
    resource_id = (await owner.registry.create_resource("payments")).resource_id
    assert resource_id is not None
    edits = [edit(EditKind.ADD_ROOT, ROOT), Edit(EditKind.CLOSE)]
    assert (await owner.registry.change_policy(resource_id, edits)).success
    return resource_id


async def test_a_running_issuer_goes_on_under_a_newer_certificate(autojump_clock) -> None:
    async with simulated_nodes(4, clock=clock) as (_, [owner, certified, other, *_]):
        resource_id = await closed(owner)
        chains = [[certificate(certified.identity, owner.identity, 600)]]
        certified.registry.use_certificates(lambda: chains)
        assert (await registered(certified, resource_id)).success
        first = (await other.registry.resolve_resource(resource_id, 2)).records
        await trio.sleep(300)
        chains.append([certificate(certified.identity, owner.identity, 900)])
        await trio.sleep(60)
        assert (await other.registry.resolve_resource(resource_id, 2)).records == first, "there is time left"
        for _ in range(24):
            await trio.sleep(60)
            assert await issuers(other, resource_id) == ({certified.peer_id} if clock() < NOW + 1200 else set())


async def test_what_another_peer_hosts_goes_on_under_a_newer_certificate_too(autojump_clock) -> None:
    async with simulated_nodes(4, clock=clock) as (_, [owner, certified, host, *_]):
        resource_id = await closed(owner)
        chains = [[certificate(certified.identity, owner.identity, 200)]]
        certified.registry.use_certificates(lambda: chains)
        done = await certified.registry.register_service(resource_id, "kept", host.peer_id, "service")
        assert done.success, done.errors
        chains.append([certificate(certified.identity, owner.identity, 900)])
        await trio.sleep(600)
        [record] = (await owner.registry.resolve_resource(resource_id, 2)).records or ()
        assert (record.metadata.peer_id, record.metadata.value) == (host.peer_id, "kept")
        await trio.sleep(400)
        assert await issuers(owner, resource_id) == set(), "nobody renewed it again"


async def test_what_was_registered_before_certificates_came_is_issued_again_under_one(autojump_clock) -> None:
    async with simulated_nodes(4, clock=clock) as (_, [owner, certified, *_]):
        resource_id = (await owner.registry.create_resource("payments")).resource_id
        assert resource_id is not None
        assert (await registered(certified, resource_id)).success
        assert (await owner.registry.change_policy(resource_id, [Edit(EditKind.CLOSE)])).success
        assert await issuers(owner, resource_id) == set()
        shown = certificate(certified.identity, owner.identity, 900, issuer=owner.identity)
        certified.registry.use_certificates(lambda: [[shown]])
        await trio.sleep(10)
        assert await issuers(owner, resource_id) == {certified.peer_id}


async def test_after_another_root_took_over_an_issuer_with_its_certificate_comes_back(autojump_clock) -> None:
    async with simulated_nodes(4, clock=clock) as (_, [owner, certified, *_]):
        resource_id, next_root = await closed(owner), identity(501)
        chains = [
            [certificate(certified.identity, owner.identity, lasts, issuer=root)]
            for root, lasts in ((ROOT, 9000), (next_root, 8000))
        ]
        certified.registry.use_certificates(lambda: chains)
        assert (await registered(certified, resource_id)).success
        await trio.sleep(10)
        edits = [edit(EditKind.DROP_ROOT, ROOT), edit(EditKind.ADD_ROOT, next_root)]
        assert (await owner.registry.change_policy(resource_id, edits)).success
        await trio.sleep(2)
        assert await issuers(owner, resource_id) == {certified.peer_id}, "it was told of the new policy"


async def test_of_many_resources_the_policies_of_some_are_watched_and_of_all_looked_at(autojump_clock) -> None:
    async with simulated_nodes(4, clock=clock) as (_, [owner, certified, *_]):
        shown = certificate(certified.identity, owner.identity, 90_000, issuer=owner.identity)
        certified.registry.use_certificates(lambda: [[shown]])
        ids: list[str] = []
        for number in range(MAX_FOLLOWED + 3):
            created = (await owner.registry.create_resource(f"service {number}")).resource_id
            assert created is not None
            assert (await registered(certified, created)).success
            ids.append(created)
        await trio.sleep(20)
        assert certified.parts.watches.statistics().resources == MAX_FOLLOWED
        for resource_id in ids[: MAX_FOLLOWED // 2]:
            assert (await certified.registry.unregister_service(resource_id, certified.peer_id)).success
        await trio.sleep(1000)
        assert certified.parts.watches.statistics().resources == MAX_FOLLOWED // 2 + 3


async def test_a_peer_that_stops_begins_to_watch_no_policy_any_more(autojump_clock, monkeypatch) -> None:
    """It stops when it has just looked at its record, and watches end first."""
    with trio.CancelScope() as stopping:
        async with simulated_nodes(4, clock=clock) as (_, [owner, certified, *_]):
            resource_id = await closed(owner)
            certified.registry.use_certificates(lambda: [[certificate(certified.identity, owner.identity, 600)]])
            assert (await registered(certified, resource_id)).success
            read = certified.parts.node_api.read

            async def read_and_stop(key_id: str, *, ack: int, timeout: float) -> ReadOutcome:
                outcome = await read(key_id, ack=ack, timeout=timeout)
                stopping.cancel()
                with trio.CancelScope(shield=True):
                    await trio.sleep(1)
                return outcome

            monkeypatch.setattr(certified.parts.node_api, "read", read_and_stop)
            await trio.sleep_forever()
    assert stopping.cancelled_caught


async def test_what_is_issued_anew_suits_the_policy_of_now(autojump_clock) -> None:
    async with simulated_nodes(4, clock=clock) as (_, [owner, certified, other, *_]):
        resource_id, second = await closed(owner), identity(501)
        assert (await owner.registry.change_policy(resource_id, [edit(EditKind.ADD_ROOT, second)])).success
        chains = [[certificate(certified.identity, owner.identity, 60)]]
        certified.registry.use_certificates(lambda: chains)
        assert (await registered(certified, resource_id)).success
        assert (await owner.registry.change_policy(resource_id, [edit(EditKind.DROP_ROOT, second)])).success
        chains.append([certificate(certified.identity, owner.identity, 9000)])
        chains.append([certificate(certified.identity, owner.identity, 9500, issuer=second)])
        for _ in range(180):
            await trio.sleep(0.5)
            assert await issuers(other, resource_id) == {certified.peer_id}


async def test_what_a_new_policy_withholds_is_no_success(autojump_clock) -> None:
    """The issuer remembers the key for a minute, and replicas take what comes after what they know in a slot."""
    async with simulated_nodes(4, clock=clock) as (_, [owner, stranger, other, *_]):
        resource_id = (await owner.registry.create_resource("payments")).resource_id
        assert resource_id is not None
        assert (await registered(stranger, resource_id)).success
        assert (await stranger.registry.unregister_service(resource_id, stranger.peer_id)).success
        await trio.sleep(3)
        assert (await owner.registry.change_policy(resource_id, [Edit(EditKind.CLOSE)])).success
        done = await registered(stranger, resource_id)
        assert (done.success, done.code) == (False, Code.ISSUER_NOT_ALLOWED)
        assert await issuers(other, resource_id) == set()
        assert (await owner.registry.change_policy(resource_id, [Edit(EditKind.OPEN)])).success
        assert (await registered(stranger, resource_id)).success
        assert await issuers(other, resource_id) == {stranger.peer_id}


async def test_an_update_shows_the_certificate_that_the_policy_of_now_wants(autojump_clock) -> None:
    async with simulated_nodes(4, clock=clock) as (_, [owner, certified, other, *_]):
        resource_id, second = await closed(owner), identity(501)
        assert (await owner.registry.change_policy(resource_id, [edit(EditKind.ADD_ROOT, second)])).success
        chains = [[certificate(certified.identity, owner.identity, 9000)]]
        certified.registry.use_certificates(lambda: chains)
        assert (await registered(certified, resource_id)).success
        assert (await owner.registry.change_policy(resource_id, [edit(EditKind.DROP_ROOT, second)])).success
        chains.append([certificate(certified.identity, owner.identity, 9500, issuer=second)])
        assert (await registered(certified, resource_id)).success
        assert await issuers(other, resource_id) == {certified.peer_id}


async def test_a_certificate_that_comes_late_brings_the_record_back(autojump_clock) -> None:
    async with simulated_nodes(4, clock=clock) as (_, [owner, certified, other, *_]):
        resource_id = await closed(owner)
        chains = [[certificate(certified.identity, owner.identity, 100)]]

        async def source() -> Sequence[Sequence[Certificate]]:
            await trio.sleep(0.1)
            return chains

        certified.registry.use_certificates(source)
        assert (await registered(certified, resource_id)).success
        await trio.sleep(200)
        assert await issuers(other, resource_id) == set()
        chains[:] = [[certificate(certified.identity, owner.identity, 3600)]]
        await trio.sleep(30)
        assert await issuers(other, resource_id) == {certified.peer_id}


async def test_what_was_ended_meanwhile_isnt_issued_again(autojump_clock) -> None:
    async with simulated_nodes(4, clock=clock) as (_, [owner, certified, other, *_]):
        resource_id = await closed(owner)
        chains = [[certificate(certified.identity, owner.identity, 300)]]
        certified.registry.use_certificates(lambda: chains)
        assert (await registered(certified, resource_id)).success
        await trio.sleep(20)
        assert (await certified.registry.unregister_service(resource_id, certified.peer_id)).success
        chains.append([certificate(certified.identity, owner.identity, 3600)])
        await trio.sleep(600)
        assert await issuers(other, resource_id) == set()


async def test_what_ended_without_this_replicas_hearing_of_it_isnt_issued_again(autojump_clock) -> None:
    """The owner removes the resource, and makes it anew, while the issuer is cut off: its own replica has neither."""
    async with simulated_nodes(5, clock=clock) as (network, [owner, certified, other, *_]):
        resource_id = await closed(owner)
        chains = [[certificate(certified.identity, owner.identity, 300)]]
        certified.registry.use_certificates(lambda: chains)
        assert (await registered(certified, resource_id)).success
        await trio.sleep(20)
        network.sides = {certified.peer_id: 1}
        assert (await owner.registry.remove_resource(resource_id, factor=3)).success
        await trio.sleep(20)
        assert await closed(owner) == resource_id
        assert await issuers(other, resource_id) == set()
        network.sides = {}
        chains.append([certificate(certified.identity, owner.identity, 3600)])
        await trio.sleep(600)
        assert await issuers(other, resource_id) == set()


async def test_a_certificate_that_begins_in_a_moment_dates_the_record(autojump_clock) -> None:
    async with simulated_nodes(4, clock=clock) as (_, [owner, certified, other, *_]):
        resource_id = await closed(owner)
        soon = certificate(certified.identity, owner.identity, 600, begins_in=8)
        certified.registry.use_certificates(lambda: [[soon]])
        assert (await registered(certified, resource_id)).success
        [record] = (await other.registry.resolve_resource(resource_id, 2)).records or ()
        assert record.timestamp_issued == soon.not_before
        later = certificate(other.identity, owner.identity, 600, begins_in=300)
        other.registry.use_certificates(lambda: [[later]])
        refused = await registered(other, resource_id)
        assert "check the clocks" in refused.errors[0]


async def test_a_source_that_fails_or_hangs_ends_nothing(autojump_clock) -> None:
    async with simulated_nodes(4, clock=clock) as (_, [owner, failing, hanging, *_]):
        resource_id = await closed(owner)

        def fail() -> list[list[Certificate]]:
            raise OSError("the one who issues is away")

        async def hang() -> list[list[Certificate]]:
            await trio.sleep_forever()
            raise AssertionError

        failing.registry.use_certificates(fail)
        hanging.registry.use_certificates(hang)
        for node in (failing, hanging):
            assert "ask the owner to allow it" in (await registered(node, resource_id)).errors[0]
        open_id = (await owner.registry.create_resource("open")).resource_id
        assert open_id is not None
        for node in (failing, hanging):
            assert (await registered(node, open_id)).success


async def test_what_nobody_knows_any_more_is_looked_for_ever_less_often(autojump_clock) -> None:
    gone = a_key("gone").id
    async with simulated_nodes(4, clock=clock) as (network, [owner, certified, *_]):
        await certified.store.write(lambda transaction: transaction.issued.record(gone, owner.peer_id, int(clock())))
        certified.registry.use_certificates(lambda: [[certificate(certified.identity, owner.identity, 7200)]])
        await trio.sleep(3600)
        reads = sum(call == (certified.peer_id, owner.peer_id, READ) for call in network.calls)
        assert 5 < reads < 20


async def test_a_chain_is_shown_on_an_open_resource_too(autojump_clock) -> None:
    async with simulated_nodes(4, clock=clock) as (_, [owner, certified, other, *_]):
        resource_id = (await owner.registry.create_resource("payments")).resource_id
        assert resource_id is not None
        shown = certificate(certified.identity, owner.identity, 600)
        certified.registry.use_certificates(lambda: [[shown]])
        assert (await registered(certified, resource_id)).success
        [record] = (await other.registry.resolve_resource(resource_id, 2)).records or ()
        assert record.metadata.solution
        await trio.sleep(900)
        assert await issuers(other, resource_id) == {certified.peer_id}, "it is open, whatever the chain says"


def written(path: Path, *chain: Certificate) -> Path:
    path.write_text(text_of(chain) + "\n")
    return path


async def test_files_are_read_again_when_they_change(tmp_path: Path) -> None:
    one, two = a_certificate(), a_certificate(expires_at=NOW + 9000)
    files = CertificateFiles([tmp_path])
    assert await files() == []
    written(tmp_path / "one.cert", one)
    (tmp_path / "notes.txt").write_text("not looked at")
    assert await files() == [(one,)]
    written(tmp_path / "new", two).rename(tmp_path / "one.cert")
    assert await files() == [(two,)]
    written(tmp_path / "two.cert", one)
    assert await files() == [(two,), (one,)]
    (tmp_path / "one.cert").unlink()
    assert await files() == [(one,)]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b" \n", "it is empty"),
        (b"aqua-registry-certificates:", "holds no certificate"),
        (b"aqua-registry-certificates:!!!", "cut off or changed"),
        (b"aqua-registry-certificates:AAAA", "not a chain of certificates"),
        (text_of([a_certificate()])[:-9].encode(), "certificate"),
        (b"a" * (MAX_TEXT + 1), "has more than"),
        (bytes(range(256)), "doesn't begin with"),
        (text_of([a_certificate()] * 4).encode(), "4 certificates; at most 3"),
    ],
)
async def test_what_is_no_certificate_is_passed_over_and_told(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "bad.cert").write_bytes(content)
    written(tmp_path / "good.cert", a_certificate())
    assert await CertificateFiles([tmp_path])() == [(a_certificate(),)]
    with pytest.raises(UnusableCertificate, match=told):
        read_chain(tmp_path / "bad.cert")


async def test_forged_ones_pipes_folders_and_missing_files_are_passed_over(tmp_path: Path) -> None:
    forged = Certificate(*(getattr(a_certificate(), name) for name in Certificate.__struct_fields__[:-1]), bytes(64))
    written(tmp_path / "forged.cert", forged)
    os.mkfifo(tmp_path / "pipe.cert")
    (tmp_path / "folder.cert").mkdir()
    with trio.fail_after(5):
        assert await CertificateFiles([tmp_path, tmp_path / "missing"])() == []
    with pytest.raises(UnusableCertificate, match="isn't signed by whom it names"):
        read_chain(tmp_path / "forged.cert")
    with pytest.raises(UnusableCertificate, match="can't read"):
        read_chain(tmp_path / "missing")


async def test_callers_choose_whom_to_believe_on_an_open_resource(autojump_clock) -> None:
    async with simulated_nodes(5, clock=clock) as (_, [owner, certified, named, stranger, caller]):
        resource_id = (await owner.registry.create_resource("payments")).resource_id
        assert resource_id is not None
        shown = certificate(certified.identity, owner.identity, 600)
        certified.registry.use_certificates(lambda: [[shown]])
        trusted = Trusted(issuers=[named.peer_id], roots=[ROOT.peer_id])
        async with caller.registry.watch(resource_id, trusted=trusted) as watch:
            with trio.fail_after(60):
                assert (await anext(watch)).records == ()
                for node in (stranger, certified, named):
                    assert (await registered(node, resource_id)).success
                added = [await anext(watch), await anext(watch)]
            assert {event.record.metadata.issued_by for event in added if event.record} == {
                certified.peer_id,
                named.peer_id,
            }
            await trio.sleep(5)
            for registry in (caller.registry, owner.registry):  # from what it watches, and by asking
                found = await registry.resolve_resource(resource_id, 1, trusted=trusted)
                assert {each.metadata.issued_by for each in found.records or ()} == {certified.peer_id, named.peer_id}
            assert len(watch.records) == 2
            await trio.sleep(10)
            with trio.fail_after(700):
                gone = await anext(watch)
            assert (gone.kind, gone.reason) == (EventKind.REMOVED, TRUST), "its certificate ended"
            assert gone.record is not None
            assert gone.record.metadata.issued_by == certified.peer_id
            assert clock() == pytest.approx(NOW + 600, abs=2)
            assert len(await issuers(caller, resource_id)) == 3, "it is there, for those who believe it"
