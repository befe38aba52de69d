"""Installing the interpreter: only the very one, and clear words where it can't be had."""

from __future__ import annotations

import io
import tarfile
from hashlib import sha256
from pathlib import Path
from typing import Final

import pytest

from aqua_compat.particles.engine import installation
from aqua_compat.particles.errors import NotInstalled

EMPTY_MODULE: Final = b"\0asm\1\0\0\0"


def tarball(folder: Path, content: bytes, name: str = "package/dist/avm.wasm") -> Path:
    place = folder / "avm.tgz"
    with tarfile.open(place, "w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return place


def test_another_file_than_the_interpreter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotInstalled, match="sha256 differs"):
        installation.install(tmp_path / "aqua", tarball(tmp_path, b"\0asm"))
    with pytest.raises(NotInstalled, match="isn't in"):
        installation.load_module(tmp_path / "aqua")


def test_tarball_of_another_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotInstalled, match="isn't a tarball of @fluencelabs/avm"):
        installation.install(tmp_path / "aqua", tarball(tmp_path, b"", "package/index.js"))


def test_what_is_no_tarball_is_refused_in_one_line(tmp_path: Path) -> None:
    place = tmp_path / "avm.tgz"
    place.write_text("no tarball")
    with pytest.raises(NotInstalled, match="can't read the tarball") as refused:
        installation.install(tmp_path / "aqua", place)
    assert "\n" not in str(refused.value)


def test_nothing_installed_tells_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotInstalled, match="aqua-registry aqua install"):
        installation.load_module(tmp_path)


def test_damaged_interpreter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "avm-0.62.0.wasm").write_bytes(b"\0asm")
    with pytest.raises(NotInstalled, match="delete it"):
        installation.load_module(tmp_path)


def test_without_npm_it_tells_how_to_bring_the_tarball(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotInstalled, match="--from"):
        installation.install(tmp_path / "aqua")


def test_missing_extra_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise installation.PackageNotFoundError(name)

    monkeypatch.setattr(installation, "version", version)
    with pytest.raises(NotInstalled, match=r"aqua-registry\[aqua\]"):
        installation.load_module(tmp_path)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with a module as the interpreter that is compiled at once: the real one takes ten seconds of CPU."""
    monkeypatch.setattr(installation, "SHA256", sha256(EMPTY_MODULE).hexdigest())
    (tmp_path / "avm-0.62.0.wasm").write_bytes(EMPTY_MODULE)
    return tmp_path


def compiled_in(folder: Path) -> Path:
    [compiled] = folder.glob("*.compiled")
    return compiled


def test_damaged_compiled_module_is_made_anew(installed: Path) -> None:
    installation.load_module(installed)
    compiled = compiled_in(installed)
    content = compiled.read_bytes()
    compiled.write_bytes(b"damaged")
    installation.load_module(installed)
    assert compiled.read_bytes() == content


def test_compiled_module_that_others_could_write_isnt_run(installed: Path) -> None:
    installation.load_module(installed)
    compiled = compiled_in(installed)
    kept = compiled.stat().st_ino
    installation.load_module(installed)
    assert compiled.stat().st_ino == kept
    compiled.chmod(0o622)
    installation.load_module(installed)
    assert compiled.stat().st_ino != kept, "it is compiled again, into a file of its own"
    assert compiled.stat().st_mode & 0o777 == 0o600
