"""What docs/recipes says of Prometheus works as it stands, with the one of Debian; so do the alert rules."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import trio

from aqua_compat.api.full_node import identity_in
from registry.model.endpoints import Instance, write_instances
from tests.end_to_end.network import eventually
from tests.end_to_end.test_dns_recipes import STARTED_WITHIN, block_of, get, running, serve
from tests.paths import ROOT
from tests.ports import free_port
from tests.unit.aqua_compat.http.running import running_server

pytestmark = pytest.mark.slow
ALERTS = ROOT / "packaging/prometheus/alerts.yaml"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool isn't here")
def test_promtool_takes_the_alert_rules() -> None:
    ran = subprocess.run(["promtool", "check", "rules", str(ALERTS)], capture_output=True, check=False, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus isn't here")
async def test_prometheus_scrapes_a_node_and_finds_services(tmp_path: Path) -> None:
    own, port = identity_in(tmp_path / "node").peer_id, free_port()
    async with running_server(tmp_path / "node", names={"acme": own}) as server, trio.open_nursery() as nursery:
        service = await nursery.start(serve, "a_figure 1\n")
        created = (await server.node.registry.create_resource("web")).resource_id
        assert created is not None
        value = write_instances([Instance(id="1", address="127.0.0.1", port=service, metadata={"zone": "eu"})])
        assert (await server.node.registry.register_service(created, value, own, None)).success
        text = block_of("prometheus-http-sd.md", "yaml")
        assert text.count("127.0.0.1:8500") == 2
        text = text.replace("127.0.0.1:8500", str(server.server.address)).replace(
            "scrape_interval: 15s", "scrape_interval: 1s"
        )
        (tmp_path / "prometheus.yaml").write_text(text)
        shutil.copy(ALERTS, tmp_path / "alerts.yaml")
        command = ["prometheus", f"--config.file={tmp_path}/prometheus.yaml", f"--storage.tsdb.path={tmp_path}/data"]

        async def targets() -> dict[str, Any]:
            body = await get(port, "/api/v1/targets")
            found = json.loads(body)["data"]["activeTargets"] if body else []
            return {each["labels"]["job"]: (each["health"], each["labels"], each["lastError"]) for each in found}

        async with running(*command, f"--web.listen-address=127.0.0.1:{port}", log=tmp_path / "log"):
            seen = await eventually(
                targets,
                lambda seen: {job: each[0] for job, each in seen.items()} == {"aqua-registry": "up", "services": "up"},
                timeout=3 * STARTED_WITHIN,
            )
            labels = seen["services"][1]
            assert (labels["service"], labels["zone"], labels["instance"]) == ("web@acme", "eu", f"127.0.0.1:{service}")
            rules = json.loads(await get(port, "/api/v1/rules"))["data"]["groups"][0]["rules"]
            assert len(rules) > 10
            assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
            asked = json.loads(await get(port, "/api/v1/query?query=aqua_ready"))["data"]["result"]
            assert [each["value"][1] for each in asked] == ["1"]
        nursery.cancel_scope.cancel()
