"""Clips from `.pose` files, as sign language processing tools exchange them.

A folder `<gloss>/<clip>.pose`, a flat folder of files, or one file. In a flat folder `labels.csv`
(columns path, gloss and, where known, signer, session, split) says what each file shows; without
it, and for a single file, the gloss is the name of the file up to a number at its end: `book_2`
and `book-10` show book.
"""

import csv
import re
import struct
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from slrctl.core.clip import Clip
from slrctl.core.data.formats.clip_folders import file_inside, files_of, folders_of, holds_file
from slrctl.core.data.formats.pose_body import PoseClip, read_pose
from slrctl.core.data.formats.reading import (
    BadClips,
    ClipProblem,
    Reading,
    count_of,
    quote,
    some_of,
)
from slrctl.errors import DataError
from slrctl.settings import DataSettings

_SUFFIX = ".pose"
_LABELS = "labels.csv"
_VERSIONS = {struct.pack("<f", version) for version in (0.0, 0.1, 0.2)}
_NUMBER_AT_END = re.compile(r"(.+?)[ _-]+\(?\d+\)?")


class _Labelled(NamedTuple):
    """A file, by its path in a folder, and what is known about it beside its content."""

    folder: Path
    path: str
    clip_id: str
    gloss: str
    facts: dict[str, str | None]


def recognises(path: Path) -> bool:
    """Whether this is a `.pose` file, or a folder of them or of folders of them."""
    if path.is_dir():
        return holds_file(path, _SUFFIX) or any(
            holds_file(gloss, _SUFFIX) for gloss in folders_of(path)
        )
    if path.suffix == _SUFFIX:
        return True
    with path.open("rb") as file:
        start = file.read(32)
    # Version, width, height, depth, number of components, and the first one's name: capitals,
    # digits and underscores, unlike anything that would follow those bytes in another format.
    length = int.from_bytes(start[12:14], "little")
    name = start[14 : 14 + min(length, 16)]
    return start[:4] in _VERSIONS and length > 2 and bool(re.fullmatch(rb"\w{3,}", name))


def read(path: Path, settings: DataSettings, classes: Sequence[str] | None) -> Reading:
    """Read every file; glosses are names, so `classes` change nothing.

    Raises:
        DataError: a file is not as it should be, or none can be read.
        SlrctlError: the package pose-format is not installed.
    """
    bad = BadClips(path)
    files, notes = _labelled_files(path)
    clips: list[Clip] = []
    poses: list[PoseClip] = []
    for index, file in enumerate(files):
        try:
            pose = _read_labelled(file, settings)
        except ClipProblem as problem:
            bad.add(index, problem.kind, str(problem), where=f"clip {quote(file.clip_id)}")
            continue
        poses.append(pose)
        clips.append(
            Clip(
                file.clip_id,
                file.gloss,
                pose.landmarks,
                fps=pose.fps,
                aspect=pose.aspect,
                **file.facts,
            )
        )
    drop_notes, dropped = bad.settle(len(files), skip=settings.skip_bad_clips)
    return Reading(clips, [*drop_notes, *notes, *_notes_on(poses)], dropped)


def _read_labelled(file: _Labelled, settings: DataSettings) -> PoseClip:
    if not file.gloss:
        raise ClipProblem("no gloss", f"{_LABELS}, column 'gloss': found an empty cell")
    return read_pose(file_inside(file.folder, file.path), settings.frame_size)


def _notes_on(poses: Sequence[PoseClip]) -> list[str]:
    layouts = Counter(pose.layout for pose in poses)
    notes = [".pose files: " + ", ".join(f"{count} {name}" for name, count in layouts.items())]
    absent = Counter(name for pose in poses for name in pose.absent)
    if absent:
        notes.append(
            f"points not in {'the files' if min(absent.values()) == len(poses) else 'all files'}, "
            f"taken as missing: {some_of(list(absent))}"
        )
    if crowds := sum(pose.num_people > 1 for pose in poses):
        notes.append(
            f"warning: {count_of(crowds, 'file')} with several people: the first one is taken"
        )
    return notes


def _labelled_files(path: Path) -> tuple[list[_Labelled], list[str]]:
    """The files to read, and a note on where their glosses come from."""
    if path.is_file():
        return [_named(path)], []
    if (path / _LABELS).is_file():
        return _read_labels(path / _LABELS), [f"glosses taken from {_LABELS}"]
    if not holds_file(path, _SUFFIX):
        return [
            _Labelled(gloss, file.name, f"{gloss.name}/{file.stem}", gloss.name, {})
            for gloss in folders_of(path)
            for file in files_of(gloss, _SUFFIX)
        ], []
    files = [_named(file) for file in files_of(path, _SUFFIX)]
    example = next((file for file in files if file.gloss != file.clip_id), files[0])
    return files, [
        f"a flat folder: glosses taken from the names of the files "
        f"({quote(example.gloss)} from {quote(example.path)}), or say them in {_LABELS}"
    ]


def _named(path: Path) -> _Labelled:
    numbered = _NUMBER_AT_END.fullmatch(path.stem)
    gloss = numbered[1] if numbered else path.stem
    return _Labelled(path.parent, path.name, path.stem, gloss, {})


def _read_labels(path: Path) -> list[_Labelled]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, restval=""))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a CSV file in UTF-8 ({error})") from error
    if not rows or not {"path", "gloss"} <= rows[0].keys():
        found = some_of([str(name) for name in rows[0]]) if rows else "no row"
        raise DataError(f"{path}: found {found}, expected the columns path and gloss")
    return [
        _Labelled(
            path.parent,
            row["path"],
            row["path"].removesuffix(_SUFFIX),
            row["gloss"],
            {name: row.get(name) or None for name in ("signer", "session", "split")},
        )
        for row in rows
    ]
