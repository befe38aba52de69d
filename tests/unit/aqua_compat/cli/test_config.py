"""A node's settings out of flags, environment, file and defaults."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from aqua_compat.agent.service_files import BadDefinitions
from aqua_compat.cli.config import (
    SettingsOrigin,
    leaves,
    load_names,
    load_settings,
    unknown_variables,
    variable_of,
)
from aqua_compat.cli.failures import Misuse
from aqua_compat.cli.service_source import SettingsOfServices
from aqua_compat.settings import Settings
from overlay.identity import Identity

OWNER = Identity.from_seed(bytes(range(32))).peer_id


def _file(folder: Path, text: str) -> Path:
    path = folder / "node.toml"
    path.write_text(text)
    return path


def test_without_anything_the_defaults_hold() -> None:
    assert load_settings(None, {}, {}) == Settings()


def test_file_mirrors_the_settings_one_to_one(tmp_path: Path) -> None:
    file = _file(
        tmp_path,
        """
        [overlay]
        listen = ["/ip4/127.0.0.1/tcp/7000", "/ip4/127.0.0.1/tcp/7001/ws"]
        dial_timeout = 2
        [overlay.calls]
        max_frame = 2048
        [registry]
        clock_skew = 0
        [registry.hosting]
        allow = "nobody"
        [weights]
        12D3KooWEXRyij7ASfeN5jcSCUoVhGcPEY4sXofJhNJctmEnjFxG = 3
        """,
    )
    settings = load_settings(file, {}, {})
    assert settings.overlay.listen == ("/ip4/127.0.0.1/tcp/7000", "/ip4/127.0.0.1/tcp/7001/ws")
    assert settings.overlay.dial_timeout == 2.0
    assert settings.overlay.calls.max_frame == 2048
    assert settings.registry.clock_skew == 0
    assert settings.registry.hosting.allow == "nobody"
    assert list(settings.weights.values()) == [3]


def test_flags_win_over_environment_over_file(tmp_path: Path) -> None:
    file = _file(tmp_path, '[overlay]\nlisten = ["file"]\nannounce = ["file"]\nbootstrap = ["file"]')
    environment = {"AQUA_REGISTRY_OVERLAY_LISTEN": "env", "AQUA_REGISTRY_OVERLAY_ANNOUNCE": "env, env2"}
    overlay = load_settings(file, environment, {("overlay", "listen"): ("flag",)}).overlay
    assert (overlay.listen, overlay.announce, overlay.bootstrap) == (("flag",), ("env", "env2"), ("file",))


def test_every_setting_has_a_variable_of_its_own() -> None:
    variables = [variable_of(path) for path, _ in leaves(Settings)]
    assert len(variables) == len(set(variables))
    assert "AQUA_REGISTRY_OVERLAY_CALLS_MAX_FRAME" in variables


def test_variables_are_parsed_by_the_settings_type() -> None:
    settings = load_settings(
        None,
        {
            "AQUA_REGISTRY_OVERLAY_MEMBER": "false",
            "AQUA_REGISTRY_OVERLAY_DIAL_TIMEOUT": "1.5",
            "AQUA_REGISTRY_REGISTRY_EXPIRED_AGE": "60",
            "AQUA_REGISTRY_WEIGHTS": '{"p": 2}',
        },
        {},
    )
    assert settings.overlay.member is False
    assert settings.overlay.dial_timeout == 1.5
    assert settings.registry.expired_age == 60
    assert settings.weights == {"p": 2}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[overlay]\nlisen = []", r"unknown setting overlay.lisen; did you mean overlay.listen\?"),
        ("[overlay.calls]\nmax_fram = 1", "did you mean overlay.calls.max_frame"),
        ("xyz = 1", "unknown setting xyz; known here: overlay, registry, upkeep, watching, names, operators, weights"),
        ("overlay = 1", r"overlay must be a table, as in \[overlay\]"),
        ('[overlay]\nlisten = "/ip4/127.0.0.1/tcp/0"', "Expected `array`, got `str` - at `overlay.listen`"),
        ('[registry]\nclock_skew = "30"', "Expected `int`, got `str` - at `registry.clock_skew`"),
        ("[overlay", "isn't TOML"),
    ],
)
def test_fault_in_the_file_is_told_with_file_and_setting(tmp_path: Path, text: str, error: str) -> None:
    file = _file(tmp_path, text)
    with pytest.raises(Misuse, match=error) as caught:
        load_settings(file, {}, {})
    assert str(file) in caught.value.message


def test_missing_file_and_bad_variable_are_told(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match=r"can't read the configuration .*none\.toml: No such file"):
        load_settings(tmp_path / "none.toml", {}, {})
    with pytest.raises(Misuse, match="AQUA_REGISTRY_REGISTRY_CLOCK_SKEW is 'soon'"):
        load_settings(None, {"AQUA_REGISTRY_REGISTRY_CLOCK_SKEW": "soon"}, {})


def test_variables_that_set_nothing_are_found() -> None:
    environment = {
        "AQUA_REGISTRY_OVERLAY_LISTEN": "",
        "AQUA_REGISTRY_RELAY": "",
        "AQUA_REGISTRY_LISTEN": "",
        "HOME": "",
    }
    assert unknown_variables(environment) == ["AQUA_REGISTRY_LISTEN"]


def test_aliases_come_from_the_file_and_the_environment(tmp_path: Path) -> None:
    file = _file(tmp_path, f'[names]\nacme = "{OWNER}"\n[registry]\nclock_skew = 5\n')
    assert load_settings(file, {}, {}).names == {"acme": OWNER}
    assert dict(load_names(file, {}, None).aliases) == {"acme": OWNER}
    variable = {"AQUA_REGISTRY_NAMES": f'{{"other": "{OWNER}"}}'}
    assert load_names(file, variable, OWNER).resource_id("web@other") == load_names(None, {}, OWNER).resource_id(
        "web@me"
    )


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('[names]\nacme = "nobody"', r"names\.acme: 'nobody' isn't the peer id of an owner"),
        ("[names]\nacme = 1", "names"),
        ('names = "acme"', "names"),
        (f'[names]\nme = "{OWNER}"', r"names\.me: it means something already"),
    ],
)
def test_wrong_aliases_are_told_with_their_file(tmp_path: Path, text: str, error: str) -> None:
    file = _file(tmp_path, text)
    for load in (lambda: load_names(file, {}, None), lambda: load_settings(file, {}, {})):
        with pytest.raises(Misuse, match=error) as caught:
            load()
        assert str(file) in caught.value.message


def test_a_fault_in_a_service_of_the_settings_is_told_with_the_file_and_its_line(tmp_path: Path) -> None:
    for line, told in (
        ("prot = 1", "service 2, prot: there is no such key; did you mean port?"),
        ('port = "1"', "service 2, port: it has to be a whole number, not a text"),
    ):
        file = _file(tmp_path, f'[[service]]\nname = "a"\n[[service]]\nname = "b"\n{line}\n')
        with pytest.raises(Misuse) as raised:
            load_settings(file, {}, {})
        assert raised.value.format_message() == f"{file}, line 3: {told}"
    file = _file(tmp_path, '\n[[service]]\nname = "a"\nport = 70000\n')

    def read() -> None:
        SettingsOfServices(partial(load_settings, file, {}, {}), OWNER, origin=SettingsOrigin(file)).read()

    with pytest.raises(BadDefinitions) as told_of_settings:
        read()
    assert told_of_settings.value.errors == (f"{file}, line 2: service 1 (a): port isn't within 0 and 65535: 70000",)
    variable = {"AQUA_REGISTRY_SERVICE": '[{"name": "b"}]'}
    for origin, place in (
        (SettingsOrigin(file, variable), "AQUA_REGISTRY_SERVICE"),
        (SettingsOrigin(), "the settings"),
    ):
        assert origin.of_services().told("service 1 (b): x") == f"{place}: service 1 (b): x"


def test_an_owner_of_services_who_is_nobody_is_told_by_its_own_setting(tmp_path: Path) -> None:
    """And not as one of each service, nor of Consul's API, which take it from there."""
    file = _file(tmp_path, '[agent]\nowner = "acne"\n[[service]]\nname = "a"\n')
    for variables, place in (({}, str(file)), ({"AQUA_REGISTRY_AGENT_OWNER": "acne"}, "AQUA_REGISTRY_AGENT_OWNER")):
        load = partial(load_settings, file, variables, {})
        source = SettingsOfServices(load, OWNER, origin=SettingsOrigin(file, variables))
        for ask in (source.read, lambda: source.owner(load())):  # noqa: B023 - called at once
            with pytest.raises(BadDefinitions) as raised:
                ask()
            [error] = raised.value.errors
            assert error.startswith(f"{place}: agent.owner: 'acne' is no alias of an owner that is known here")
            assert 'set `names.acne = "12D3KooW..."` in the settings' in error
