"""The result of a reader, clips that cannot be read, and folders that hold clips."""

import csv
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Float32

from slrctl.core import skeleton
from slrctl.core.clip import Clip
from slrctl.core.data.readers.cleaning import padding_length, padding_notes
from slrctl.errors import DataError, SlrctlError, count_of, quote, some_of

_LONGEST_REASON = 120


class ClipProblem(Exception):  # noqa: N818 - the clip is at fault
    """The reason why a clip, or a whole file, cannot be read.

    `kind` is a few words for the tally of `--skip-bad-clips`, `column` the column at fault.
    """

    def __init__(self, kind: str, message: str, *, column: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.column = column


@contextmanager
def library_errors(file_kind: str) -> Iterator[None]:
    """Turn any error of the library that reads a format into a `ClipProblem` of one line."""
    try:
        yield
    except (ClipProblem, SlrctlError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno:  # a missing permission, a failing disk
            raise
        # Libraries quote bytes of the damaged file as they are.
        text = "".join(letter if letter.isprintable() else " " for letter in str(error))
        reason = " ".join(text.split())[:_LONGEST_REASON] or type(error).__name__
        raise ClipProblem(
            "damaged file",
            f"cannot be read as {file_kind}: it is cut off or damaged ({reason}); "
            "fetch or write it again",
        ) from error


@dataclass(frozen=True)
class BadClip:
    """A clip that cannot be read: its place, a few words for the tally, and the whole message."""

    where: str
    kind: str
    message: str


@dataclass
class Reading:
    """The clips of a file, one-line notes on how it was read, and the clips left out.

    `clips` may be read during iteration, so that they need not fit into memory together; they can
    be iterated more than once, and all problems are known beforehand. `dropped` holds each clip
    that `data.skip_bad_clips` left out. A note that begins with "warning: " needs attention.
    """

    clips: Iterable[Clip]
    notes: list[str] = field(default_factory=list)
    dropped: list[BadClip] = field(default_factory=list)


class Findings:
    """The clips of one file that cannot be read, by row, and the padding cut off the others."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bad: dict[int, BadClip] = {}
        self._padding: list[int] = []

    def add(self, row: int, problem: ClipProblem, *, where: str | None = None) -> None:
        """Note a bad clip; the first reason counts.

        `row` counts the clips of the file from 0; messages count from 1.
        A clip that is a file or a folder rather than a row of a table has its own name, `where`.
        """
        column = f", column {problem.column!r}" if problem.column else ""
        where = where or f"row {row + 1}{column}"
        self.bad.setdefault(row, BadClip(where, problem.kind, str(problem)))

    def trimmed(self, clip: Clip) -> Clip:
        """Cut the padding off a good clip, and count it for the notes."""
        cut = padding_length(clip.landmarks)
        self._padding.append(cut)
        return replace(clip, landmarks=clip.landmarks[: clip.num_frames - cut])

    def settle(self, num_clips: int, *, skip: bool) -> tuple[list[str], list[BadClip]]:
        """Stop at the first bad clip, or leave all of them out and report them.

        Returns:
            Notes for the user, and the clips left out.

        Raises:
            DataError: a clip is bad and `skip` is off, or no clip is left.
        """
        notes = padding_notes(self._padding)
        if not self.bad:
            return notes, []
        ordered = [self.bad[row] for row in sorted(self.bad)]
        first = f"{ordered[0].where}: {ordered[0].message}"
        if not skip:
            raise DataError(
                f"{self.path}: {first}; "
                "correct the file, or leave such clips out with --skip-bad-clips"
            )
        if len(ordered) == num_clips:
            raise DataError(
                f"{self.path}: none of its {num_clips} clips can be read; the first is {first}"
            )
        tally = Counter(clip.kind for clip in ordered)
        reasons = ", ".join(f"{count} {kind}" for kind, count in tally.most_common())
        return [f"left out {len(ordered)} of {num_clips} clips: {reasons}", *notes], ordered


def read_small_table(path: Path, required: Collection[str]) -> list[dict[str, str]]:
    """Read a CSV of names beside the clips; a cell that is not there is empty.

    Raises:
        DataError: it is not a CSV in UTF-8, lacks a column or has no row.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="", skipinitialspace=True)
            columns = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = columns
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a CSV file in UTF-8 ({error})") from error
    if not (rows and set(columns).issuperset(required)):
        raise DataError(
            f"{path}: found {count_of(len(rows), 'row')} of the columns {some_of(columns)}, "
            f"expected at least one row and the columns {', '.join(required)}"
        )
    return rows


def check_landmarks(
    landmarks: Float32[np.ndarray, "T 54 2"], missing: str = "nan", column: str = ""
) -> int:
    """Refuse infinite coordinates and clips without a landmark; half a landmark becomes missing.

    Args:
        landmarks: of one clip, NaN where missing; half landmarks are changed in place.
        missing: the value by which the format marks a missing landmark.
        column: the column of a table that holds them.

    Returns:
        The number of half landmarks.
    """
    if np.isinf(landmarks).any():
        frame, landmark, axis = np.argwhere(np.isinf(landmarks))[0].tolist()
        raise ClipProblem(
            "inf",
            f"found inf as {'xy'[axis]} of {skeleton.LANDMARK_NAMES[landmark]} in frame "
            f"{frame + 1}, expected a finite number, or {missing} if missing",
            column=column,
        )
    # Axis by axis: reducing an axis of two is several times slower.
    lacks_x, lacks_y = np.isnan(landmarks[..., 0]), np.isnan(landmarks[..., 1])
    is_missing = lacks_x | lacks_y
    landmarks[is_missing] = np.nan
    if is_missing.all():
        raise ClipProblem(
            "no usable frame",
            f"none of its {count_of(len(landmarks), 'frame')} has a landmark; "
            f"expected at least one that is not {missing}",
            column=column,
        )
    return int((lacks_x != lacks_y).sum())


def check_size(path: Path, largest_bytes: int) -> None:
    """Refuse a file that is too large for one clip, before it is read into memory."""
    size = path.stat().st_size
    if size > largest_bytes:
        raise ClipProblem(
            "too large file", f"has {size:,} bytes, expected at most {largest_bytes:,} for one clip"
        )


def folders_of(folder: Path) -> list[Path]:
    """List the folders in a folder, in numeric order."""
    return _ordered(entry for entry in _entries(folder) if entry.is_dir())


def files_of(folder: Path, suffix: str) -> list[Path]:
    """List the files in a folder whose names end in `suffix`, in numeric order."""
    return _ordered(entry for entry in _entries(folder) if _is_file(entry, suffix))


def holds_file(folder: Path, suffix: str) -> bool:
    """True if a folder holds such a file; stops at the first."""
    return any(_is_file(entry, suffix) for entry in _entries(folder))


def file_inside(folder: Path, relative: str) -> Path:
    """Find the file that a row of a table names, which must lie in the folder of the table."""
    path = PurePosixPath(relative)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in relative:
        raise ClipProblem(
            "path elsewhere",
            f"column 'path': found {quote(relative)}, expected a path inside the folder",
        )
    if not (folder / path).is_file():
        raise ClipProblem(
            "missing file",
            f"column 'path': the file {quote(relative)} is not in {folder}; fetch it",
        )
    return folder / path


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield the entries of a folder, without those that systems and notebooks leave behind."""
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not entry.name.startswith((".", "__")))


def _is_file(entry: os.DirEntry[str], suffix: str) -> bool:
    return entry.name.endswith(suffix) and entry.is_file()


def _ordered(entries: Iterable[os.DirEntry[str]]) -> list[Path]:
    """Sort paths so that 2 comes before 10."""

    def key(path: Path) -> list[tuple[int, str]]:
        words = re.split(r"(\d+)", path.name)
        return [(int(word), "") if word.isdecimal() else (0, word) for word in words]

    return sorted(map(Path, entries), key=key)
