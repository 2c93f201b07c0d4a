"""Read settings, summaries and the like, which may be anybody's: small text, TOML, JSON."""

import errno
import json
import os
import re
import secrets
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from slrctl.errors import UsageError

LARGEST_BYTES = 64 << 20
_DEEPEST_PATH = 100
_NAME = re.compile(r"[ \t]*[^\s=,\[\]{}#]+[ \t]*")


def read_text(path: Path) -> str:
    """The text of a file, without the mark that some editors put before it.

    Raises:
        OSError: it cannot be read, is no file (a pipe would be waited for), or holds over 64 MB.
        UnicodeDecodeError: it is not UTF-8.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "is a device, a pipe or a socket, and no file")
    with path.open("rb") as file:
        content = file.read(LARGEST_BYTES + 1)
    if len(content) > LARGEST_BYTES:
        raise OSError(errno.EFBIG, f"holds more than {LARGEST_BYTES >> 20} MB")
    return content.decode("utf-8-sig")


def parse_toml(text: str) -> dict[str, Any]:
    """What a TOML text says.

    Raises:
        ValueError: it is no TOML, has values within values without end, or an endless number.
    """
    if _longest_path(text) > _DEEPEST_PATH:
        raise ValueError("values within values without end")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("values within values without end") from None


def _longest_path(text: str) -> int:
    """Names joined by dots, as many as follow one another: each is a table within the one before.

    The parser takes memory by the square of their number.
    """
    longest = current = 0
    for part in text.split("."):
        current = current + 1 if _NAME.fullmatch(part) else 0
        longest = max(longest, current)
    return longest


def parse_json(text: str) -> Any:
    """What a JSON text says; NaN and infinity are no JSON.

    Raises:
        ValueError: it is no JSON, or has values within values without end.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("values within values without end") from None


def _refuse(name: str) -> None:
    raise ValueError(f"{name}, which is no JSON")


def user_cache_folder() -> Path:
    """The folder of slrctl's own caches."""
    home = Path.home()
    if sys.platform == "win32":
        folder = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        folder = home / "Library" / "Caches"
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return folder / "slrctl"


def check_replaceable(path: Path) -> None:
    """Refuse what is there and no file: a rename over a device or a pipe would destroy it.

    Raises:
        UsageError: it is a device, a pipe or a socket, or a link to one.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UsageError(f"{path}: is a device, a pipe or a socket; name a file to write to")


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
