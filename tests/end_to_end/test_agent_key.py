"""An agent that registers under another key than its node's, with the certificate of that."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import trio

from aqua_compat import AquaClient, connect
from aqua_compat.cli.node_process import NodeProcess
from registry.model.signing import key_id_of
from tests.end_to_end.forked import fork_server
from tests.end_to_end.network import Finished, Network, command, eventually

Shown = list[tuple[str, str, bool]]
"""Of the records of a resource: issuer, host, and whether it is usable."""


async def shown(client: AquaClient, label: str, owner: str) -> Shown:
    resolved = await client.registry.resolve_resource(key_id_of(label, owner), 1, include_down=True)
    return sorted((*slot[1:], health.is_usable) for slot, health in resolved.health.items())


async def test_a_certified_key_registers_on_its_node_and_finds_its_own_again(
    own_network: Network, tmp_path: Path
) -> None:
    owner = (await command("key", "new", "company", home=tmp_path)).out.strip()
    key = (await command("key", "new", "machine", home=tmp_path)).out.strip()
    key_file = json.loads((await command("key", "show", "machine", "--json", home=tmp_path)).out)["file"]
    as_owner = ("-k", "company", "--relay", own_network.relay())
    db = (await command("resource", "create", "db", *as_owner, home=tmp_path)).out.strip()
    closed = await command("resource", "policy", db, "--close", *as_owner, home=tmp_path)
    assert closed.code == 0, closed.err
    issue = ("cert", "issue", "--for", key, "--on", "db", "--expires", "1h", "-k", "company")
    certificate, config = tmp_path / "db.cert", tmp_path / "node.toml"
    certificate.write_text((await command(*issue, home=tmp_path)).out)
    services = (
        f'[[service]]\nname = "db"\nowner = "{owner}"\nport = 5432\n[[service.check]]\nttl = 600\n'
        '[[service]]\nname = "kept"\nowner = "me"\nport = 1\non_stop = "stay"\n'
    )
    config.write_text(f'[agent]\nkey = "{key_file}"\ncertificates = "{certificate}"\n{services}')
    node = NodeProcess(tmp_path / "node", tmp_path / "node.log", fork_server().open_process)
    start = partial(node.start, *("--bootstrap", own_network.nodes[0].address, "--config", str(config)), timeout=100)
    await start()
    here = node.peer_id

    async def asked(*arguments: str) -> Finished:
        done = await command(*arguments, "--node", str(node.data_dir), home=tmp_path)
        assert done.code == 0, done.err
        return done

    try:
        async with connect(own_network.nodes[1].address) as client:
            of_db, of_kept = (partial(shown, client, *which) for which in (("db", owner), ("kept", here)))
            await eventually(of_db, [(key, here, False)].__eq__, timeout=60)
            await eventually(of_kept, [(key, here, True)].__eq__, timeout=60)
            await asked("check", "pass", "db")
            await eventually(of_db, [(key, here, True)].__eq__, timeout=60)
            await asked("check", "fail", "db")
            await eventually(of_db, [(key, here, False)].__eq__, timeout=60)

            config.write_text(services)
            told = await asked("reload")
            assert told.out == "nothing changed\n"
            assert "agent.key was another at the start: restart the node" in told.err
            config.write_text(f'[agent]\nkey = "{key_file}"\ncertificates = "{certificate}"\n{services}')

            assert await node.stop(timeout=60) == 0
            await eventually(of_db, [].__eq__, timeout=60)
            await eventually(of_kept, [(key, here, False)].__eq__, timeout=60)
            await start()
            await eventually(of_db, [(key, here, False)].__eq__, timeout=60)
            await eventually(of_kept, [(key, here, True)].__eq__, timeout=60)

            # Without the setting the node registers as itself, and what the key left, of which the file is there, ends.
            assert await node.stop(timeout=60) == 0
            config.write_text(services)
            await start()
            await eventually(of_kept, [(here, here, True)].__eq__, timeout=60)
            assert await of_db() == []
            log = await trio.Path(node.log_file).read_text()
            assert f"its owner permits it by `aqua-registry resource policy {db} --allow {here}`" in log
    finally:
        await node.kill()


async def test_a_key_or_certificate_that_cant_be_used_is_told_with_setting_file_and_remedy(tmp_path: Path) -> None:
    config, certificate, passphrase = tmp_path / "node.toml", tmp_path / "a.cert", tmp_path / "passphrase"
    key = (await command("key", "new", "machine", home=tmp_path)).out.strip()

    async def told(*settings: str) -> str:
        config.write_text("\n".join(("[agent]", *settings)))
        ended = await command("node", "--data-dir", str(tmp_path / "node"), "--config", str(config), home=tmp_path)
        assert (ended.code, ended.out, ended.err.count("\n")) == (1, "", 1)
        return ended.err

    missing = await told('key = "nobody"')
    assert f"{config}: agent.key: there is no file " in missing
    assert "nobody.json; `aqua-registry key new NAME` makes a key" in missing
    certificate.write_text(
        (await command("cert", "issue", "--for", key, "--on", "db", "--expires", "1h", home=tmp_path)).out
    )
    own = await told(f'certificates = "{certificate}"')
    assert f"{config}: agent.certificates: they are for agent.key" in own
    theirs = await command("cert", "issue", "--for", (await command("key", "new", "x", home=tmp_path)).out.strip(),
                           "--on", "db", "--expires", "1h", home=tmp_path)  # fmt: skip
    certificate.write_text(theirs.out)
    foreign = await told('key = "machine"', f'certificates = "{certificate}"')
    assert f"{config}: agent.certificates: the certificate {certificate} isn't for agent.key, which is {key}" in foreign
    assert f"`aqua-registry cert issue --for {key}`" in foreign
    gone = await told('key = "machine"', f'certificates = "{tmp_path / "none.cert"}"')
    assert f"{config}: agent.certificates: can't read the certificate {tmp_path / 'none.cert'}" in gone

    passphrase.write_text("secret\n")
    passphrase.chmod(0o600)
    sealed = await command("key", "seal", "machine", home=tmp_path, AQUA_REGISTRY_PASSPHRASE_FILE=str(passphrase))
    assert sealed.code == 0, sealed.err
    locked = await told('key = "machine"')
    assert f"{config}: agent.key: the key in " in locked
    assert "is sealed: name the file with its passphrase by AQUA_REGISTRY_PASSPHRASE_FILE" in locked
