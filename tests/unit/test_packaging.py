"""What packaging/ has fits this repository: it is what its schema says, and its commands are ours."""

from __future__ import annotations

import json
import re
import subprocess
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from aqua_compat.agent.service_files import read_text
from aqua_compat.cli.main import cli
from registry.model.names import Names
from tests.end_to_end.container import instructions
from tests.paths import ROOT
from tests.unit.aqua_compat.acting import OWNER

CONTAINER, KUBERNETES = ROOT / "packaging/container", ROOT / "packaging/kubernetes"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
COMPOSE: dict[str, Any] = yaml.safe_load((CONTAINER / "compose.yaml").read_text())
OLDEST, NEWEST = "1.29", "1.33"


def check_command(arguments: list[str]) -> None:
    """That `aqua-registry` takes these arguments."""
    context = click.Context(cli, info_name="aqua-registry")
    command = cli.get_command(context, arguments[0])
    assert command is not None, arguments
    command.make_context(arguments[0], arguments[1:], parent=context)


def check_services(text: str) -> None:
    assert read_text("web.toml", text, Names({}, OWNER.peer_id)).services


def pinned() -> dict[str, Version]:
    lines = (CONTAINER / "requirements.txt").read_text().splitlines()
    found = [re.match(r"([A-Za-z0-9._-]+)==([^ ;\\]+)", line) for line in lines]
    return {match[1]: Version(match[2]) for match in found if match}


def test_the_lock_has_every_dependency_in_a_version_that_fits_and_names_no_index() -> None:
    locked = pinned()
    for text in PROJECT["project"]["dependencies"]:
        wanted = Requirement(text)
        assert wanted.name in locked, f"make packaging/container/requirements.txt anew: {wanted.name} isn't in it"
        assert wanted.specifier.contains(locked[wanted.name]), f"{text}, and {locked[wanted.name]} is locked"
    assert "://" not in (CONTAINER / "requirements.txt").read_text()


STEPS = instructions((CONTAINER / "Containerfile").read_text())


def test_the_container_runs_as_a_user_without_rights_and_says_how_it_is() -> None:
    last = [number for number, (word, _) in enumerate(STEPS) if word == "FROM"][-1]
    stage = STEPS[last:]
    given = dict(stage)
    assert re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", given["USER"])
    assert [word for word, _ in stage].index("USER") > max(
        number for number, (word, _) in enumerate(stage) if word in ("RUN", "COPY")
    )
    checked = json.loads(given["HEALTHCHECK"].partition("CMD ")[2])
    assert (json.loads(given["ENTRYPOINT"]), checked[0]) == (["aqua-registry"], "aqua-registry")
    check_command(checked[1:])
    check_command(json.loads(given["CMD"]))


def test_a_linter_finds_nothing_in_the_containerfile() -> None:
    linter = Path(sysconfig.get_path("scripts")) / "hadolint"
    done = subprocess.run([linter, CONTAINER / "Containerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_compose_takes_its_file() -> None:
    """By the schema of the Compose specification."""
    checker = Path(sysconfig.get_path("scripts")) / "check-jsonschema"
    command = [checker, "--builtin-schema", "vendor.compose-spec", CONTAINER / "compose.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_on_an_index_no_link_of_readme_leads_nowhere() -> None:
    """What hatch-fancy-pypi-readme makes of it, by the same substitutions."""
    text = (ROOT / "README.md").read_text()
    for one in PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(one["pattern"], one["replacement"], text)
    assert re.findall(r"\]\((?!https?:)[^)]*\)", text) == []
    assert "docs/agent.md" in text


def test_the_container_gets_what_is_here() -> None:
    copied = [rest.split()[:-1] for word, rest in STEPS if word == "COPY" and "--from" not in rest]
    sources = {source for each in copied for source in each}
    assert all((ROOT / source).exists() for source in sources)
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    readme = PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["fragments"][0]["path"]
    assert {*wheel, "pyproject.toml", readme, *PROJECT["project"]["license-files"]} <= sources
    assert not any(word == "ADD" for word, _ in STEPS)


def test_composes_services_run_our_commands_with_what_is_declared() -> None:
    for name, service in COMPOSE["services"].items():
        if "command" in service:
            check_command(service["command"])
        for volume in service["volumes"]:
            assert volume.partition(":")[0] in COMPOSE["volumes"], name
        for other in service.get("depends_on", ()):
            assert other in COMPOSE["services"], name
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
    assert (CONTAINER / COMPOSE["services"]["seed"]["build"]["context"]).resolve() == ROOT
    assert (ROOT / COMPOSE["services"]["seed"]["build"]["dockerfile"]).exists()
    check_services(COMPOSE["configs"]["web"]["content"])


OBJECTS = [
    pytest.param(document, id=f"{path.name} {number} {document['kind']}")
    for path in sorted(KUBERNETES.glob("*.yaml"))
    for number, document in enumerate(yaml.safe_load_all(path.read_text()))
]


@pytest.mark.parametrize("document", OBJECTS)
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_manifests_are_what_kubernetes_takes(document: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("document", OBJECTS)
def test_pods_run_our_commands_without_rights_and_mount_what_they_have(document: dict[str, Any]) -> None:
    if document["kind"] == "ConfigMap":
        for text in document["data"].values():
            check_services(text)
    pod = document["spec"]["template"]["spec"] if "template" in document.get("spec", {}) else None
    if pod is None:
        return
    claims = document["spec"].get("volumeClaimTemplates", ())
    volumes = {each["name"] for each in pod["volumes"]} | {each["metadata"]["name"] for each in claims}
    assert pod["securityContext"]["runAsNonRoot"]
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        assert {each["name"] for each in container.get("volumeMounts", ())} <= volumes
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        if "args" in container:
            check_command(container["args"])
        for probe in ("startupProbe", "livenessProbe"):
            if probe in container:
                command = container[probe]["exec"]["command"]
                assert command[0] == "aqua-registry"
                check_command(command[1:])


def test_the_version_in_manifests_is_this_one() -> None:
    images = {
        image
        for path in KUBERNETES.glob("*.yaml")
        for image in re.findall(r"image: aqua-registry:(\S+)", Path(path).read_text())
    }
    assert images == {PROJECT["project"]["version"]}
