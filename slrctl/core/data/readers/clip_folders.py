"""Walk folders of clips: a folder for each gloss, and in it a folder or a file for each clip."""

import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path, PurePosixPath

from slrctl.core.data.readers.reading import ClipProblem, quote


def folders_of(folder: Path) -> list[Path]:
    """The folders in a folder, in numeric order."""
    return _ordered(entry for entry in _entries(folder) if entry.is_dir())


def files_of(folder: Path, suffix: str) -> list[Path]:
    """The files in a folder whose names end in `suffix`, in numeric order."""
    return _ordered(
        entry for entry in _entries(folder) if entry.name.endswith(suffix) and entry.is_file()
    )


def holds_file(folder: Path, suffix: str) -> bool:
    """Whether a folder holds such a file; stops at the first."""
    return any(entry.name.endswith(suffix) and entry.is_file() for entry in _entries(folder))


def file_inside(folder: Path, relative: str) -> Path:
    """The file that a table names, which must lie in the folder of the table.

    Raises:
        ClipProblem: the name is empty or leads out of the folder, or the file is not there.
    """
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


def frames_of(clip: Path, suffix: str) -> list[Path]:
    """The files of a clip, a frame each, in the order of their numbers, which have no gap.

    Raises:
        ClipProblem: there is no file, a name is no number, or a number is missing or there twice.
    """
    frames = files_of(clip, suffix)
    if not frames:
        raise ClipProblem(
            "no frame", f"holds no frame; expected a file for each: 0{suffix}, 1{suffix}, ..."
        )
    strange = next((frame.name for frame in frames if not frame.stem.isdecimal()), None)
    if strange is not None:
        raise ClipProblem(
            "frame without a number",
            f"found the file {quote(strange)}, expected the frame's number as its name, "
            f"such as 0{suffix}",
        )
    frames.sort(key=lambda frame: int(frame.stem))
    for before, after in pairwise(frames):
        step = int(after.stem) - int(before.stem)
        if step != 1:
            raise ClipProblem(
                "frame there twice" if step == 0 else "gap between frames",
                f"found frame {quote(before.name)} followed by {quote(after.name)}, expected "
                "every number once; fetch what is missing, or number the frames anew",
            )
    return frames


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """What lies in a folder, but for what an operating system or a notebook left there."""
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not entry.name.startswith((".", "__")))


def _ordered(entries: Iterator[os.DirEntry[str]]) -> list[Path]:
    """Paths in an order that puts 2 before 10."""
    return sorted(
        map(Path, entries),
        key=lambda path: [
            (int(part), "") if part.isdecimal() else (0, part)
            for part in re.split(r"(\d+)", path.name)
        ],
    )
