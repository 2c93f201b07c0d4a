"""Read settings, summaries and the like, which may be anybody's: small text, TOML, JSON."""

import errno
import json
import re
import tomllib
from pathlib import Path
from typing import Any

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
