"""Which videos are to be turned into clips, and what is known about each."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from slrctl.core.data.formats.reading import count_of, quote, some_of
from slrctl.errors import DataError

SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov"),
    *(".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".webm", ".wmv"),
)
UNKNOWN_GLOSS = "unknown"
_NEEDED, _OPTIONAL = ("path", "gloss"), ("signer", "session", "split")


@dataclass(frozen=True)
class Video:
    """One video, which becomes one clip."""

    path: Path
    clip_id: str
    gloss: str
    signer: str | None = None
    session: str | None = None
    split: str | None = None


class Listing(NamedTuple):
    """Videos in a stable order, and one-line notes on how they were found."""

    videos: list[Video]
    notes: list[str]


def list_videos(source: Path, gloss: str | None = None) -> Listing:
    """Find the videos that a path stands for.

    Args:
        source: a video; a folder of videos; a folder with a folder of videos per gloss; or a CSV
            file with the columns path and gloss, and signer, session, split where they are known.
        gloss: what the videos show, where neither a folder nor a column says so.

    Raises:
        DataError: there is no video, or the list cannot be used.
    """
    if not source.exists():
        raise DataError(f"{source}: is not there; check the path")
    try:
        listing = _found_in(source, gloss)
    except OSError as error:
        raise DataError(
            f"{source}: cannot be read: {error.strerror or error}; check its permissions"
        ) from error
    if not listing.videos:
        raise DataError(
            f"{source}: holds no video; we look for *{', *'.join(SUFFIXES)} in the folder "
            "itself, or one folder below it, where the folder's name is the gloss"
        )
    return listing


def _found_in(source: Path, gloss: str | None) -> Listing:
    if source.is_file() and source.suffix.lower() == ".csv":
        return _from_csv(source)
    if source.is_file():
        return _unnamed([source], gloss)
    folders = {folder: _videos_in(folder) for folder in sorted(source.iterdir()) if folder.is_dir()}
    named = {folder: paths for folder, paths in folders.items() if paths}
    lying_loose = _videos_in(source)
    if not named:
        return _unnamed(lying_loose, gloss)
    notes = []
    if lying_loose:
        notes.append(
            f"warning: {count_of(len(lying_loose), 'video')} beside the folders of the glosses "
            f"left out: {some_of([path.name for path in lying_loose])}"
        )
    if empty := [folder.name for folder, paths in folders.items() if not paths]:
        notes.append(f"warning: {count_of(len(empty), 'folder')} without videos: {some_of(empty)}")
    videos = [
        Video(path, f"{folder.name}/{name}", folder.name)
        for folder, paths in named.items()
        for path, name in zip(paths, _clip_names(paths), strict=True)
    ]
    return Listing(videos, notes)


def _videos_in(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()
    )


def _clip_names(paths: Sequence[Path]) -> list[str]:
    """Names without their ends, except where two in one folder would then be the same."""
    counts = Counter(path.with_suffix("") for path in paths)
    return [path.stem if counts[path.with_suffix("")] == 1 else path.name for path in paths]


def _unnamed(paths: list[Path], gloss: str | None) -> Listing:
    notes = []
    if gloss is None and paths:
        notes.append(
            f"nothing says what {count_of(len(paths), 'video')} "
            f"{'shows' if len(paths) == 1 else 'show'}: the gloss becomes {UNKNOWN_GLOSS!r}; give "
            "--gloss, a folder per gloss, or a CSV with path and gloss"
        )
    names = _clip_names(paths)
    videos = [
        Video(path, name, gloss or UNKNOWN_GLOSS) for path, name in zip(paths, names, strict=True)
    ]
    return Listing(videos, notes)


def _from_csv(source: Path) -> Listing:
    """Videos a CSV names; their paths start at its folder.

    Raises:
        DataError: a column is missing, or a row has no path or no gloss or repeats another's path.
    """
    rows: dict[str, dict[str, str]] = {}
    for line, row in _rows_of(source):
        for name in _NEEDED:
            if not row[name]:
                raise DataError(f"{source}: line {line}, column {name!r}: is empty; fill it in")
        if row["path"] in rows:
            raise DataError(
                f"{source}: line {line}, column 'path': found {quote(row['path'])}, which a line "
                "above names already; keep one of them"
            )
        rows[row["path"]] = row
    if not rows:
        raise DataError(f"{source}: has no rows; name a video in each, with its gloss")
    paths = [Path(path) for path in rows]
    return Listing(
        [
            Video(
                source.parent / path,
                path.with_name(name).as_posix(),
                row["gloss"],
                *(row[optional] or None for optional in _OPTIONAL),
            )
            for path, name, row in zip(paths, _clip_names(paths), rows.values(), strict=True)
        ],
        [],
    )


def _rows_of(source: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The lines of a CSV, counted from 1, each with all columns we know of."""
    line = 1
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = [name.strip() for name in reader.fieldnames or []]
            if missing := [name for name in _NEEDED if name not in columns]:
                raise DataError(
                    f"{source}: found the columns {some_of(columns) or 'none'}, expected "
                    f"{', '.join(_NEEDED)} and, where known, {', '.join(_OPTIONAL)}; "
                    f"add {' and '.join(missing)}"
                )
            reader.fieldnames = columns
            for row in reader:
                line = reader.line_num
                yield (
                    line,
                    {name: (row.get(name) or "").strip() for name in (*_NEEDED, *_OPTIONAL)},
                )
    except UnicodeDecodeError as error:
        raise DataError(
            f"{source}: is not UTF-8: byte {error.object[error.start]:#04x} after line {line}; "
            "save it as CSV (UTF-8)"
        ) from None
    except csv.Error as error:
        raise DataError(
            f"{source}: is not CSV after line {line} ({error}); save it as CSV (UTF-8)"
        ) from None
