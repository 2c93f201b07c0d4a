"""Small texts read with clear errors, files written whole or not at all, the cache folder."""

import errno
import json
import os
import re
import secrets
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import platformdirs

from slrctl.errors import DataError, SlrctlError, UsageError

LARGEST_BYTES = 64 << 20
# A hundred keys joined by dots: each is a table within the one before, and the parser takes memory
# by the square of their number.
_NESTED_KEYS = re.compile(
    r"""(?<![^\s=,\[\]{}])  # where a key may begin
    (?: (?: "[^"\n]*+" | '[^'\n]*+' | [^\s=,\[\]{}\#."']++ ) [ \t]*+ \. [ \t]*+ ){100}""",
    re.VERBOSE,
)
_TOO_DEEP = "nested too deeply"


def read_text(path: Path) -> str:
    """Return the text of a file, without a byte order mark.

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
    """Parse TOML.

    Raises:
        ValueError: it is not TOML, or nested too deeply.
    """
    if _NESTED_KEYS.search(text):
        raise ValueError(_TOO_DEEP)
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None


def parse_json(text: str) -> Any:
    """Parse JSON, which has no NaN and no infinity.

    Raises:
        ValueError: it is not JSON, or nested too deeply.
    """

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        DataError: it cannot be read, or is not TOML.
    """
    with reporting_text(path, "TOML"):
        return parse_toml(read_text(path))


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: it cannot be read, or is not JSON.
    """
    with reporting_text(path, "JSON"):
        return parse_json(read_text(path))


@contextmanager
def reporting_text(path: Path, language: str) -> Iterator[None]:
    """Turn a failure to read or to parse a text into a `DataError`."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        raise DataError(f"{path}: not a {language} file ({error})") from None


def user_cache_folder() -> Path:
    """Return the folder of slrctl's own caches."""
    return platformdirs.user_cache_path("slrctl", appauthor=False)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, which replaces `path` when the block ends well.

    The temporary file lies in the same folder, because a rename is atomic only within one file
    system, and keeps the suffix, because some writers choose their format by it. Where the block
    raises, an interruption included, the temporary file is removed and `path` stays as it was.

    Args:
        path: the file to write; its folder must exist.

    Raises:
        FileNotFoundError: the block ended without writing the temporary file.
        UsageError: `path` is a device, a pipe or a socket, which a rename would destroy.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UsageError(f"{path}: is a device, a pipe or a socket; name a file to write to")
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        # Without this, a power cut after the rename could leave the name without its content.
        _flush_to_disk(temporary, os.O_RDWR)
        os.replace(temporary, path)
    finally:
        with suppress(OSError):  # the disk may be read-only by now; the first error counts
            temporary.unlink(missing_ok=True)
    if os.name == "posix":  # elsewhere a folder cannot be opened
        _flush_to_disk(path.parent, os.O_RDONLY)


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Make a folder to write results to.

    Raises:
        SlrctlError: it cannot be made, or the block could not write to it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise SlrctlError(
            f"{folder}: cannot be written ({error.strerror}); choose another --output"
        ) from None


def _flush_to_disk(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write an indented JSON file, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Append one JSON object to a file of lines; it is on the disk when this returns.

    Raises:
        OSError: it cannot be written, or is a link, which may lead to anybody's file.
    """

    def open_file(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)

    with open(path, "a", encoding="utf-8", opener=open_file) as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
