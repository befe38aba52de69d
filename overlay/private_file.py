"""Files that are their owner's alone, and on the disk complete or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_private(path: Path, content: bytes) -> None:
    """Put `content` in place of a file, complete or not at all, readable by its owner alone (mode 0600). Its folder has
    to be there; a link in the file's place is replaced, not followed. Blocks. Raises OSError."""
    temporary = written_beside(path, content)
    try:
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def written_beside(path: Path, content: bytes) -> Path:
    """A new file in the folder of `path`, with this content, on the disk; its name is one that nobody could guess and
    put a link there. Blocks. Raises OSError."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600 from the start
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return Path(temporary)
