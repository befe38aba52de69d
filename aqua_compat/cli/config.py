"""A node's settings out of flags, environment, file and defaults, in that order of precedence.

The TOML file mirrors `aqua_compat.settings.Settings` one to one: `[overlay]`, `[overlay.calls]`, `[registry]`,
`[registry.hosting]`, `[aqua]`, `[weights]`, `[names]`. Every single setting also has an environment variable: its path
in upper case after `AQUA_REGISTRY_`, so `overlay.calls.max_frame` is AQUA_REGISTRY_OVERLAY_CALLS_MAX_FRAME; several
values in one are separated by commas or spaces, and tables are JSON.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import msgspec

from aqua_compat.agent.file_form import FileForm, ServiceForm, readable, unknown_keys
from aqua_compat.agent.service_places import ServicePlaces
from aqua_compat.cli.failures import Misuse
from aqua_compat.settings import Settings
from registry.errors import InvalidValue
from registry.model.names import Names

PREFIX = "AQUA_REGISTRY_"
MAX_FAULTS = 20
"""In services, that are told at once."""
# Variables that are no settings of a node: options of commands.
_OPTIONS = frozenset(
    PREFIX + name
    for name in (
        "RELAY",
        "KEY",
        "TIMEOUT",
        "CERTIFICATE",
        "CONFIG",
        "DATA_DIR",
        "JOIN",
        "LOG_LEVEL",
        "LOG_FORMAT",
        "NODE",
    )
)

Nested = dict[str, Any]
SettingPath = tuple[str, ...]


def load_settings(file: Path | None, environment: Mapping[str, str], flags: Mapping[SettingPath, object]) -> Settings:
    """The settings of a node. Raises Misuse that names the file, variable or flag with the fault."""
    merged: Nested = {}
    if file is not None:
        merged = _read(file)
        _check_services(merged, file)
        _convert(merged, str(file))
    for path, value in _from_environment(environment):
        _place(merged, path, value)
    for path, value in flags.items():
        _place(merged, path, value)
    settings = _convert(merged, "the settings")
    _names(settings.names, str(file or "the settings"))
    return settings


def load_names(file: Path | None, environment: Mapping[str, str], own: str | None) -> Names:
    """The aliases among the settings in a file and the environment, for commands; `own`: what `me` means.

    Raises Misuse that names the file or variable with the fault.
    """
    content = {} if file is None else _read(file)
    variable = variable_of(("names",))
    for path, value in _from_environment({name: environment[name] for name in (variable,) if name in environment}):
        _place(content, path, value)
    aliases = content.get("names", {})
    try:
        checked = msgspec.convert(aliases, dict[str, str], strict=True)
    except msgspec.ValidationError:
        raise Misuse(
            f'{file or variable}: names must be a table of texts, as in [names] and acme = "12D3KooW..."'
        ) from None
    return _names(checked, str(file or variable), own)


class SettingsOrigin(NamedTuple):
    """Where the settings of a node come from, so that a fault in one is told with that."""

    file: Path | None = None
    environment: Mapping[str, str] = {}

    def of(self, *setting: str) -> str:
        """Where the setting of that path was given: in a variable, or else the file, if there is one."""
        variable = variable_of(setting)
        return variable if variable in self.environment else str(self.file or "the settings")

    def of_services(self) -> ServicePlaces:
        """Where the services among the settings are defined, with their lines if that is the file."""
        named = ServicePlaces(self.of("service"))
        if self.file is None or named.name != str(self.file):
            return named
        try:
            text = self.file.read_text(encoding="utf-8")
            return ServicePlaces.of(named.name, text, tomllib.loads(text), is_toml=True)
        except (OSError, ValueError):  # it was read a moment ago
            return named


def _names(aliases: Mapping[str, str], source: str, own: str | None = None) -> Names:
    try:
        return Names(aliases, own)
    except InvalidValue as error:
        raise Misuse(f"{source}: {error}") from None


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Variables that look like ours and set nothing: worth a warning, but others (Kubernetes) make such names too."""
    ours = {name for name in environment if name.startswith(PREFIX)} - _OPTIONS
    # Looking through all settings takes 10 ms, mostly for nothing.
    return sorted(ours - {variable_of(path) for path, _ in leaves(Settings)}) if ours else []


def variable_of(path: SettingPath) -> str:
    """The environment variable of a setting."""
    return PREFIX + "_".join(path).upper()


def leaves(form: type[msgspec.Struct], prefix: SettingPath = ()) -> Iterator[tuple[SettingPath, Any]]:
    """Path and type of every single setting."""
    hints = get_type_hints(form)
    for name in form.__struct_fields__:
        hint = hints[name]
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            yield from leaves(hint, (*prefix, name))
        else:
            yield (*prefix, name), hint


def _read(file: Path) -> Nested:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise Misuse(f"can't read the configuration {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Misuse(f"the configuration {file} isn't TOML: {error}") from None
    _refuse_unknown(content, Settings, (), file)
    return content


def _refuse_unknown(content: Nested, form: type[msgspec.Struct], prefix: SettingPath, file: Path) -> None:
    hints = get_type_hints(form)
    for name, value in content.items():
        full = ".".join((*prefix, name))
        if name not in hints:
            near = difflib.get_close_matches(name, hints, 1)
            hint = f"did you mean {'.'.join((*prefix, near[0]))}?" if near else f"known here: {', '.join(hints)}"
            raise Misuse(f"{file} has an unknown setting {full}; {hint}")
        part = hints[name]
        if isinstance(part, type) and issubclass(part, msgspec.Struct):
            if not isinstance(value, dict):
                raise Misuse(f"{file}: {full} must be a table, as in [{full}]")
            _refuse_unknown(value, part, (*prefix, name), file)


def _check_services(content: Nested, file: Path) -> None:
    """Raises Misuse for a fault of form in `[[service]]`, with the line where that service begins."""
    services = {"service": content.get("service", [])}
    faults = list(unknown_keys(services))
    if not faults:
        try:
            msgspec.convert(services, FileForm, strict=True)
        except msgspec.ValidationError as error:
            faults = [readable(str(error))]
    if faults:
        places = SettingsOrigin(file).of_services()
        raise Misuse("; ".join(map(places.told, faults[:MAX_FAULTS])))


def _from_environment(environment: Mapping[str, str]) -> Iterator[tuple[SettingPath, object]]:
    if not any(name.startswith(PREFIX) for name in environment):
        return
    for path, hint in leaves(Settings):
        text = environment.get(variable_of(path))
        if text is None:
            continue
        try:
            yield path, _parse(text, hint)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            raise Misuse(f"{variable_of(path)} is {text!r}: {error}") from None


def _parse(text: str, hint: Any) -> object:
    if hint == tuple[str, ...]:
        return tuple(text.replace(",", " ").split())
    if hint in (dict[str, int], dict[str, str], tuple[ServiceForm, ...]):
        return msgspec.json.decode(text, type=hint)
    parsed: object = msgspec.convert(text, hint, strict=False)
    return parsed


def _place(merged: Nested, path: SettingPath, value: object) -> None:
    for name in path[:-1]:
        merged = merged.setdefault(name, {})
    merged[path[-1]] = value


def _convert(merged: Nested, source: str) -> Settings:
    try:
        return msgspec.convert(merged, Settings, strict=True)
    except msgspec.ValidationError as error:
        raise Misuse(f"{source}: {str(error).replace('`$.', '`')}") from None
