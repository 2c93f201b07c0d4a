"""What a reader hands back, and what it does with clips that cannot be read."""

import difflib
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from slrctl.core.clip import Clip
from slrctl.errors import DataError

_LONGEST_QUOTE = 60
_MOST_COMPARED = 2000


@dataclass(frozen=True)
class BadClip:
    """Why a clip cannot be read: its place, a few words for the tally, and the whole story."""

    where: str
    kind: str
    message: str


@dataclass
class Reading:
    """The clips of a file, one-line notes on how it was read, and the rows left out.

    `clips` may be read as they are gone through, so that they need not fit into memory together;
    they can be gone through more than once, and what is wrong with them is known beforehand.
    `dropped` holds each clip that `data.skip_bad_clips` left out. A note that starts with
    "warning: " tells of something the user should look at.
    """

    clips: Iterable[Clip]
    notes: list[str] = field(default_factory=list)
    dropped: list[BadClip] = field(default_factory=list)


class ClipProblem(Exception):  # noqa: N818 - the clip is what is wrong
    """Why one clip cannot be read: a few words for the tally, and the whole story."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class BadClips:
    """The clips of one file that cannot be read, by row index; the first reason counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[int, BadClip] = {}

    def add(
        self, row: int, kind: str, message: str, *, column: str = "", where: str | None = None
    ) -> None:
        """Note a bad clip. `row` counts the clips of the file from 0; messages count from 1.

        A clip that is no row of a table, but a file or a folder, has a name of its own: `where`.
        """
        where = where or f"row {row + 1}" + (f", column {column!r}" if column else "")
        self.rows.setdefault(row, BadClip(where, kind, message))

    def settle(self, num_clips: int, *, skip: bool) -> tuple[list[str], list[BadClip]]:
        """Stop at the first bad clip, or leave all of them out and tell which.

        Returns:
            Notes for the user, and the clips left out.

        Raises:
            DataError: a clip is bad and `skip` is off, or no clip is left.
        """
        if not self.rows:
            return [], []
        first = self.rows[min(self.rows)]
        if not skip:
            raise DataError(
                f"{self.path}: {first.where}: {first.message}; "
                "correct the file, or leave such clips out with --skip-bad-clips"
            )
        if len(self.rows) == num_clips:
            raise DataError(
                f"{self.path}: none of its {num_clips} clips can be read; "
                f"the first is {first.where}: {first.message}"
            )
        ordered = [self.rows[row] for row in sorted(self.rows)]
        tally = Counter(clip.kind for clip in ordered)
        reasons = ", ".join(f"{count} {kind}" for kind, count in tally.most_common())
        note = f"left out {len(self.rows)} of {num_clips} clips: {reasons}"
        return [note], ordered


def read_limited(path: Path, largest_bytes: int) -> bytes:
    """The content of a file that is not too large for one clip.

    Raises:
        ClipProblem: it is.
    """
    # Asked first: `read` takes all the memory it is allowed before it looks at the file.
    size = path.stat().st_size
    if size > largest_bytes:
        raise ClipProblem(
            "too large file", f"has {size:,} bytes, expected at most {largest_bytes:,} for one clip"
        )
    return path.read_bytes()


def quote(value: object) -> str:
    """A value found in a file, on one line and short enough for a message."""
    text = repr(value.decode("utf-8", "replace") if isinstance(value, bytes) else value)
    if len(text) <= _LONGEST_QUOTE:
        return text
    return f"{text[: _LONGEST_QUOTE - 4]}...{text[-1]}"


def some_of(names: list[str], limit: int = 5) -> str:
    """The first few names, quoted, and how many more there are."""
    shown = ", ".join(quote(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def nearest_of(name: str, known: Collection[str]) -> str:
    """Which of the names that there are look most like one that there is not."""
    # Comparing with every id of a large set would take long: those that begin alike come first.
    likely = sorted(known, key=lambda other: (-_common_length(name, other), other))
    near = difflib.get_close_matches(name, likely[:_MOST_COMPARED], 3, 0.0)
    return f"the nearest are {some_of(near)}" if len(near) > 1 else f"there is {some_of(near)}"


def _common_length(first: str, second: str) -> int:
    """How many characters two texts begin with alike."""
    pairs = zip(first, second, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def count_of(number: int, noun: str) -> str:
    """A number with its noun, in the plural where it belongs: 1 clip, 2 clips."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun}es" if noun.endswith("ss") else f"{number:,} {noun}s"
