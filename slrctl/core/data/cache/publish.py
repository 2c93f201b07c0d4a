"""Put a file into a folder that several processes write to at once."""

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

UNFINISHED = ".part"
# A writer that is alive writes on; what has not grown for this long was left behind by one that
# was killed.
_ABANDONED_SECONDS = 3600.0


@contextmanager
def publishing(path: Path) -> Iterator[Path]:
    """Give a path of its own to write to, whose file then takes the place of `path`.

    Two writers of one file both succeed, and the later one's stays. Where the block raises,
    nothing is left. Nothing is forced onto the disk: a reader that finds what a power cut left
    must tell by a checksum.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(8)}{UNFINISHED}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def abandoned_files(folder: Path) -> list[Path]:
    """What writers that were killed have left in a folder."""
    found: list[Path] = []
    for path in folder.glob(f"*{UNFINISHED}"):
        with suppress(OSError):  # its writer may have finished meanwhile
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                found.append(path)
    return found
