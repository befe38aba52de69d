"""Reads the services of this machine from a folder of TOML and JSON files, and from the settings.

Everything is read before anything counts: one fault in one file, and there are no definitions, only errors that name
file, field and remedy. Whoever reads again then keeps what it has.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from aqua_compat.agent.check_forms import check_of
from aqua_compat.agent.consul_files import is_consul, translate
from aqua_compat.agent.definitions import (
    MAX_CHECKS,
    MAX_SERVICES,
    AliasCheck,
    CheckDefinition,
    DefinedInstance,
    ServiceDefinition,
)
from aqua_compat.agent.file_form import FileForm, FormError, InstanceForm, ServiceForm, readable, unknown_keys
from aqua_compat.agent.service_places import ServicePlaces
from registry.errors import InvalidValue
from registry.model.endpoints import Instance, write_instances
from registry.model.names import OWN, Names
from registry.model.signing import key_id_of

MAX_FILE: Final = 2**20  # bytes
MAX_FILES: Final = 1_000
MAX_ERRORS: Final = 20
"""Errors that are told of one reading."""

_LEFT_BEHIND: Final = frozenset(
    {".bak", ".dpkg-dist", ".dpkg-new", ".dpkg-old", ".new", ".old", ".orig", ".swp", ".tmp"}
)


class BadDefinitions(Exception):
    """Files or settings define services wrongly; each of `errors` is a line that names file, field and remedy."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("; ".join(errors))
        self.errors = tuple(errors)


class Definitions(NamedTuple):
    """What was read: the services, what was passed over, and what names meant meanwhile."""

    services: tuple[ServiceDefinition, ...]
    warnings: tuple[str, ...]
    names: Names = Names()


def read_services(
    folder: Path | None,
    names: Names,
    *,
    in_settings: Sequence[ServiceForm] = (),
    settings: ServicePlaces = ServicePlaces("the settings"),  # noqa: B008 - it is immutable
    allow_scripts: bool = False,
    owner: str = OWN,
) -> Definitions:
    """The services that the files `*.toml` and `*.json` in `folder` define, and those `in_settings`, whose places are
    those of `settings`.

    `names`: the aliases of owners, and who `me` is; `owner`: of services that name none. Raises BadDefinitions.
    """
    reader = _Reader(names, allow_scripts, owner)
    reader.take(in_settings, settings)
    for path in [] if folder is None else reader.files(folder):
        reader.read_file(str(path), partial(_text_of, path))
    return reader.definitions()


def read_text(name: str, text: str, names: Names, *, allow_scripts: bool = False, owner: str = OWN) -> Definitions:
    """The services that the text of one file called `name` defines. Whether they fit together, and what there is
    besides, is for `check_together`. Raises BadDefinitions."""
    reader = _Reader(names, allow_scripts, owner)
    reader.read_file(name, lambda: text)
    return reader.read()


def read_form(
    form: ServiceForm, source: str, names: Names, *, allow_scripts: bool = False, owner: str = OWN
) -> Definitions:
    """One service that is defined in `source`. Whether it fits what there is besides is for `check_together`. Raises
    BadDefinitions."""
    reader = _Reader(names, allow_scripts, owner)
    reader.take((form,), ServicePlaces(source))
    return reader.read()


def check_together(services: Sequence[ServiceDefinition]) -> None:
    """Raises BadDefinitions where services of several readings don't fit together."""
    reader = _Reader(Names(), allow_scripts=False)
    reader.add(services)
    reader.definitions()


class _Reader:
    def __init__(self, names: Names, allow_scripts: bool, owner: str = OWN) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self._names = names
        self._allow_scripts = allow_scripts
        self._owner = owner
        self._services: list[ServiceDefinition] = []

    def definitions(self) -> Definitions:
        """What was read, once it fits together. Raises BadDefinitions."""
        self._check_together()
        return self.read()

    def read(self) -> Definitions:
        """What was read. Raises BadDefinitions."""
        if self.errors:
            more = len(self.errors) - MAX_ERRORS
            raise BadDefinitions([*self.errors[:MAX_ERRORS], *([f"and {more} more"] if more > 0 else [])])
        return Definitions(tuple(self._services), tuple(self.warnings), self._names)

    def files(self, folder: Path) -> list[Path]:
        try:
            there = sorted(folder.iterdir())
            others = [path.name for path in there if _looks_meant(path)]
        except OSError as error:
            self.errors.append(f"{folder}: can't be read: {error.strerror}; give --services a folder of service files")
            return []
        found = [path for path in there if path.suffix in (".toml", ".json")]
        if others:
            more = f" and {len(others) - 5} more" if len(others) > 5 else ""
            self.warnings.append(
                f"{folder}: passed over, since service files are called *.toml or *.json: {', '.join(others[:5])}{more}"
            )
        if len(found) > MAX_FILES:
            self.errors.append(
                f"{folder}: has {len(found)} service files; {MAX_FILES} at most, several services in one"
            )
        return [path for path in found[:MAX_FILES] if not path.name.startswith(".")]

    def read_file(self, name: str, text: Callable[[], str]) -> None:
        """Adds the services of a file, or the errors in it."""
        places, is_toml = ServicePlaces(name), name.endswith(".toml")
        try:
            written = text()
            content = _content(written, is_toml=is_toml)
            places = ServicePlaces.of(name, written, content, is_toml=is_toml)
            if is_consul(content) and not is_toml:
                content, passed_over = translate(content)
                self.warnings += [f"{name}: {one}" for one in passed_over]
            wrong = [places.told(one) for one in unknown_keys(content)]
            self.errors += wrong
            if not wrong:
                self.take(msgspec.convert(content, FileForm, strict=True).service, places)
        except (FormError, InvalidValue) as error:
            self.errors.append(places.told(str(error)))
        except msgspec.ValidationError as error:
            self.errors.append(places.told(readable(str(error))))

    def take(self, forms: Iterable[ServiceForm], places: ServicePlaces) -> None:
        """Adds the definitions of these, and the errors in them."""
        for number, form in enumerate(forms, 1):
            try:
                self._services.append(self._service(form, places.at(number)))
            except (FormError, InvalidValue) as error:
                self.errors.append(places.told(f"service {number} ({form.name[:80]}): {error}"))

    def add(self, services: Iterable[ServiceDefinition]) -> None:
        """Adds what was read before."""
        self._services += services

    def _check_together(self) -> None:
        if len(self._services) > MAX_SERVICES:
            self.errors.append(f"there are {len(self._services)} services; {MAX_SERVICES} at most")
        known: dict[str, ServiceDefinition] = {}
        for service in self._services:
            other = known.setdefault(service.id, service)
            if other is not service:
                self.errors.append(
                    f"{service.source}: two services have the id {service.id!r}, the other in {other.source};"
                    ' give one another `id = "..."`'
                )
        self._check_records(known.values())
        self._check_aliases(known)

    def _check_records(self, known: Iterable[ServiceDefinition]) -> None:
        records: dict[str, list[ServiceDefinition]] = {}
        for service in known:
            records.setdefault(service.key_id, []).append(service)
        for services in records.values():
            try:
                write_instances([one.instance for service in services for one in service.instances])
            except InvalidValue as error:
                sources = " and ".join(dict.fromkeys(service.source for service in services))
                self.errors.append(f"{sources}: the instances of {services[0].label!r} don't fit one record: {error}")

    def _check_aliases(self, known: dict[str, ServiceDefinition]) -> None:
        targets: dict[str, set[str]] = {}
        for service in self._services:
            for one in service.instances:
                for check in one.checks:
                    if not isinstance(check.probe, AliasCheck):
                        continue
                    target = check.probe.service
                    if target not in known:
                        ids = ", ".join(sorted(known)[:10])
                        self.errors.append(
                            f"{service.source}: service {service.id!r}, check {check.name!r}: alias: there is no"
                            f" service with the id {target!r} on this machine; there are: {ids}"
                        )
                    targets.setdefault(service.id, set()).add(target)
        for start, reached in targets.items():
            seen, ahead = set[str](), set(reached)
            while ahead:
                seen |= ahead
                ahead = {further for one in ahead for further in targets.get(one, ())} - seen
            if start in seen:
                source = known[start].source
                self.errors.append(
                    f"{source}: service {start!r}: alias: it comes round to itself; check something else"
                )

    def _service(self, form: ServiceForm, source: str) -> ServiceDefinition:
        if not form.name:
            raise FormError("name: it is empty; give the label of the resource")
        try:
            owner = self._names.owner(form.owner or self._owner)
        except InvalidValue as error:
            raise FormError(f"owner: {error}") from None
        service_id = form.id or form.name
        if form.instance:
            for field in ("address", "port", "protocol", "weight"):
                if getattr(form, field) != getattr(ServiceForm(name="-"), field):
                    raise FormError(f"{field}: it is given beside `instance`; give it within each instance")
            instances = tuple(self._instance(form, one, f"instance {one.id[:80]!r}, ") for one in form.instance)
        else:
            only = InstanceForm(
                id=service_id, address=form.address, port=form.port, protocol=form.protocol, weight=form.weight
            )
            instances = (self._instance(form, only, ""),)
        return ServiceDefinition(
            id=service_id,
            label=form.name,
            owner=owner,
            key_id=key_id_of(form.name, owner),
            instances=instances,
            on_stop=form.on_stop,
            source=source,
        )

    def _instance(self, service: ServiceForm, form: InstanceForm, place: str) -> DefinedInstance:
        forms = (*service.check, *form.check)
        if len(forms) > MAX_CHECKS:
            raise FormError(f"{place}check: there are {len(forms)}; {MAX_CHECKS} at most")
        checks: list[CheckDefinition] = []
        given = {check.name for check in forms}
        for number, check in enumerate(forms, 1):
            try:
                taken, scripts = [one.name for one in checks], self._allow_scripts
                checks.append(check_of(check, taken, allow_scripts=scripts, given=given))
            except FormError as error:
                raise FormError(f"{place}check {number}: {error}") from None
        try:
            instance = Instance(
                id=form.id,
                address=form.address,
                port=form.port,
                protocol=form.protocol,
                tags=tuple(dict.fromkeys((*service.tags, *form.tags))),
                metadata=service.metadata | form.metadata,
                weight=form.weight,
                checks=tuple(check.name for check in checks),
            )
        except InvalidValue as error:
            raise FormError(f"{place}{error}") from None
        return DefinedInstance(instance=instance, checks=tuple(checks))


def _looks_meant(path: Path) -> bool:
    """Whether somebody may believe that a file counts which doesn't, such as Consul's in HCL: it is neither hidden nor
    what editors and packages leave behind."""
    is_left = path.name.startswith(".") or path.name.endswith("~") or path.suffix in _LEFT_BEHIND
    return path.suffix not in (".toml", ".json") and not is_left and path.is_file()


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except OSError as error:
        raise FormError(f"can't be read: {error.strerror}") from None
    if len(content) > MAX_FILE:
        raise FormError(f"has more than {MAX_FILE} bytes; split it")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise FormError(f"isn't UTF-8, from byte {error.start} on") from None


def _content(text: str, *, is_toml: bool) -> object:
    try:
        # Python's own reader of JSON tells the line; msgspec's tells the byte.
        parsed: object = tomllib.loads(text) if is_toml else json.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise FormError(f"isn't TOML: {error}") from None
    except json.JSONDecodeError as error:
        raise FormError(f"isn't JSON: {error.msg} (at line {error.lineno}, column {error.colno})") from None
    except (RecursionError, ValueError):  # nested a thousand deep; a number of more than 4,300 digits
        raise FormError("can't be read: it is nested too deep, or a number in it is too long") from None
    if not isinstance(parsed, dict):
        raise FormError("isn't a JSON object with a list `service`")
    if isinstance(parsed.get("service"), dict) and is_toml:
        raise FormError("service: it is one table; write [[service]], twice in brackets, for each service")
    return parsed
