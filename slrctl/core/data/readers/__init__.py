"""Readers of every format of clips: one module each, in one visible list.

A reader is a module with two functions. `recognises(path)` looks at the content, not only at the
name; `read(path, settings, classes)` returns the clips, cleaned: oriented, without padding, divided
by the size of the image, NaN where a landmark is missing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np

from slrctl.core import skeleton
from slrctl.core.clip import Clip
from slrctl.core.data.readers import competition, mediapipe, parquet, pose, spoter_csv
from slrctl.core.data.readers.cleaning import read_gloss_names
from slrctl.core.data.readers.reading import ClipProblem, Reading
from slrctl.errors import DataError, quote
from slrctl.settings import DataSettings

# The first that recognises a file reads it. Our own Parquet claims any Parquet file, so it is last.
READERS = (spoter_csv, competition, mediapipe, pose, parquet)

_KINDS = (
    "a SPOTER/WLASL CSV, our own Parquet, a folder of MediaPipe vectors as "
    "<gloss>/<clip>/<frame>.npy, a folder of .pose files as <gloss>/<clip>.pose (or one such "
    "file), or the folder of the Google competition (train.csv and a long Parquet file a clip)"
)
_STARTS = {
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"PK\x03\x04": "a zip archive or an Excel file; unpack it, or save the sheet as CSV (UTF-8)",
    b"BZh": "a bzip2 archive; unpack it first",
    b"\xfd7zXZ": "an xz archive; unpack it first",
    b"\x28\xb5\x2f\xfd": "a zstd archive; unpack it first",
    b"version https://git-lfs": "a Git LFS pointer, not the data; fetch it with git lfs pull",
}


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(32)


def _kind_of(path: Path) -> str | None:
    """Describe a file that has to be unpacked or fetched first."""
    start = _first_bytes(path)
    return next((kind for magic, kind in _STARTS.items() if start.startswith(magic)), None)


def _reader_of(path: Path) -> ModuleType | None:
    reader = next((reader for reader in READERS if reader.recognises(path)), None)
    if reader is None and path.suffix.lower() == ".csv" and _kind_of(path) is None:
        return spoter_csv  # which says what the file lacks
    return reader


def _absent_hands(clips: Iterable[Clip]) -> list[str]:
    """Note a hand that no clip has: normal where signs are made with one hand, or a fault."""
    hands = {"left": skeleton.LEFT_HAND, "right": skeleton.RIGHT_HAND}
    absent = [
        side
        for side, hand in hands.items()
        if all(np.isnan(clip.landmarks[:, hand]).all() for clip in clips)
    ]
    if len(absent) == 2:
        return ["warning: no hand in any frame: only the body is left to learn from"]
    return [
        f"no {side} hand in any frame: it counts as absent, which needs no repair; if signers "
        "used it, look at how the landmarks were extracted"
        for side in absent
    ]


def _describe_unknown(path: Path) -> str:
    """Describe a file or folder that no reader recognises, and the next step."""
    if path.is_dir():
        return f"is a folder without clips we can read; name one of: {_KINDS}"
    if (kind := _kind_of(path)) is not None:
        return f"is {kind}; we read {_KINDS}"
    start = f"starts with {quote(_first_bytes(path)[:8])}"
    if path.suffix.lower() in (".parquet", ".pq"):
        return f"is not Parquet: it {start}, expected b'PAR1'; fetch it again"
    return f"is of a type we do not know, it {start}; we read {_KINDS}"


def folder_of(path: Path) -> Path:
    """Return the file or folder that holds everything a reading of `path` looks at."""
    is_index = path.is_file() and _reader_of(path) is competition
    return path.parent if is_index else path


def read_clips(path: Path, settings: DataSettings, classes: Sequence[str] | None) -> Reading:
    """Read a file with the first reader that recognises it.

    Raises:
        DataError: the file does not exist, no reader recognises it, or its reader cannot read it.
    """
    if not path.exists():
        raise DataError(f"{path}: is not there; check the path")
    if not (path.is_file() or path.is_dir()):
        raise DataError(
            f"{path}: is a device, a pipe or a socket; write its content into a file and name that"
        )
    if settings.gloss_names is not None:  # a wrong path is an error even if no label needs a name
        read_gloss_names(settings.gloss_names)
    try:
        if path.is_file() and path.stat().st_size == 0:
            raise DataError(f"{path}: is empty (0 bytes); fetch or write it again")
        reader = _reader_of(path)
        if reader is None:
            raise DataError(f"{path}: {_describe_unknown(path)}")
        reading = reader.read(path, settings, classes)
        return replace(reading, notes=[*reading.notes, *_absent_hands(reading.clips)])
    except ClipProblem as problem:
        raise DataError(f"{path}: {problem}") from problem
    except OSError as error:
        raise DataError(
            f"{error.filename or path}: cannot be read: {error.strerror or error}; "
            "check its permissions"
        ) from error
