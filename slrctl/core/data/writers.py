"""Writers of the two formats of clips, chosen by the suffix of the file's name."""

import csv
import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from slrctl.core import skeleton
from slrctl.core.clip import Clip
from slrctl.core.data.readers.parquet import write_parquet
from slrctl.core.data.readers.spoter_csv import FPS, HEIGHT, LABELS, WIDTH
from slrctl.errors import DataError, SlrctlError, UsageError, some_of
from slrctl.files import replacing, write_text

_PARQUET, _CSV = (".parquet", ".pq"), ".csv"
_DECIMALS = 6
# No side of a video is longer, so the ratio of two sides is found again exactly.
_LONGEST_SIDE = 10_000


def write_csv(clips: Sequence[Clip], path: Path) -> list[str]:
    """Write one row a clip, coordinates as shares of the image, rounded to six decimals.

    Missing landmarks are written as 0, 0. Glosses that are integers are written as they are;
    others are numbered from 0 in their order, and `<stem>.glosses.json`, written beside the file,
    holds their names. Columns for frame rate and frame size are written if a clip knows them; of
    the size only the ratio is known, so 16 x 9 stands for any such size.

    Returns:
        Notes on what the layout could not hold, for the user.

    Raises:
        DataError: there is no clip.
    """
    if not clips:
        raise DataError(f"{path}: there is no clip to write; check the selection of clips")
    labels, names = _number_glosses([clip.gloss for clip in clips])
    extra = {LABELS: [str(label) for label in labels], **_known_facts(clips)}
    coordinates = [f"{name}_{axis}" for name in skeleton.LANDMARK_NAMES for axis in "XY"]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*extra, *coordinates])
        for row, clip in enumerate(clips):
            facts = [column[row] for column in extra.values()]
            writer.writerow([*facts, *_cells(clip.landmarks)])
    facts = ("signer", "session", "split")
    lost = [name for name in facts if any(getattr(clip, name) is not None for clip in clips)]
    notes = [f"not in the file, the layout has no column for it: {some_of(['clip_id', *lost])}"]
    if names:
        names_path = path.with_name(f"{path.stem}.glosses.json")
        text = json.dumps(dict(enumerate(names)), ensure_ascii=False, indent=1)
        write_text(names_path, text + "\n")
        notes.append(f"glosses are numbered: read it with --set data.gloss_names={names_path}")
    return notes


def _number_glosses(glosses: Sequence[str]) -> tuple[list[int], list[str]]:
    """Return the label of each clip, and the names of the labels where glosses are no integers."""
    if all(gloss.isascii() and gloss.isdigit() and gloss == str(int(gloss)) for gloss in glosses):
        return [int(gloss) for gloss in glosses], []
    names = sorted(set(glosses))
    label_of = {name: label for label, name in enumerate(names)}
    return [label_of[gloss] for gloss in glosses], names


def _known_facts(clips: Sequence[Clip]) -> dict[str, list[str]]:
    """Return the columns of frame rates and sizes, each only if one of the clips knows it."""
    columns: dict[str, list[str]] = {}
    if any(clip.fps is not None for clip in clips):
        columns[FPS] = ["" if clip.fps is None else str(clip.fps) for clip in clips]
    if any(clip.aspect != 1 for clip in clips):
        ratios = [Fraction(clip.aspect).limit_denominator(_LONGEST_SIDE) for clip in clips]
        columns[WIDTH] = [str(ratio.numerator) for ratio in ratios]
        columns[HEIGHT] = [str(ratio.denominator) for ratio in ratios]
    return columns


def _cells(landmarks: Float32[np.ndarray, "T 54 2"]) -> list[str]:
    """Write one list of numbers a coordinate."""
    values = landmarks.astype(np.float64).round(_DECIMALS)
    # A landmark in the very corner of the image would read as missing.
    values[(values == 0).all(-1)] = 10.0**-_DECIMALS
    values[np.isnan(values).any(-1)] = 0
    return [str(numbers) for numbers in values.reshape(len(values), -1).T.tolist()]


def check_output(path: Path, *, force: bool) -> None:
    """Refuse a file name without a known suffix, and a file that exists already."""
    if path.suffix.lower() not in (*_PARQUET, _CSV):
        raise UsageError(
            f"{path}: the end of its name says no format we write; let it end in .parquet (ours, "
            "keeps everything) or .csv (SPOTER layout)"
        )
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name a file in it")
    names = [path.with_name(f"{path.stem}.glosses.json")] if path.suffix.lower() == _CSV else []
    for written in (path, *names):
        if written.exists() and not force:
            raise UsageError(f"{written}: is there already; choose another name, or pass --force")


def write_clips(clips: Sequence[Clip], path: Path) -> list[str]:
    """Write clips in the format the name asks for, whole or not at all; its folder is made.

    Returns:
        Notes on what the format could not hold.

    Raises:
        SlrctlError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() == _CSV:
            return write_csv(clips, path)
        write_parquet(clips, path)
    except OSError as error:
        raise SlrctlError(
            f"{path}: cannot be written ({error.strerror or error}); choose another place"
        ) from None
    return []
