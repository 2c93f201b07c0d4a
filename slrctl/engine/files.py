"""Write files so that a reader sees the old one or the whole new one, never a part."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from slrctl.core.whole_file import check_replaceable


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to, which takes the place of `path` when the block ends well.

    The temporary file lies in the same folder, because a rename is atomic only within one file
    system, and keeps the suffix, because some writers choose their format by it. Where the block
    raises, an interruption included, the temporary file is removed and `path` stays as it was.

    Args:
        path: the file to write; its folder must exist.

    Raises:
        FileNotFoundError: the block ended without writing the temporary file.
        UsageError: `path` is a device, a pipe or a socket.
    """
    check_replaceable(path)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        # Without this, a power cut after the rename could leave the name without its content.
        _flush_to_disk(temporary, os.O_RDWR)
        os.replace(temporary, path)
    finally:
        with suppress(OSError):  # on a disk that is read-only now; what went wrong first counts
            temporary.unlink(missing_ok=True)
    if os.name == "posix":  # elsewhere a folder cannot be opened
        _flush_to_disk(path.parent, os.O_RDONLY)


def _flush_to_disk(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
