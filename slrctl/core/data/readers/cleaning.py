"""Coordinates and labels in the form clips have: the steps that readers of files share.

The frames of all clips of a file are concatenated into one array, (frames, 54, 2), because some
questions (are these pixels, does y point up) can only be answered over the whole set.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from slrctl.core import skeleton
from slrctl.errors import DataError, quote
from slrctl.files import parse_json, read_text, reporting_text

_SHOULDERS = [skeleton.RIGHT_SHOULDER, skeleton.LEFT_SHOULDER]
# Coordinates divided by the image size stay near 0-1, even where a hand leaves the image.
_LARGEST_SHARE = 2.0


class Cleaned(NamedTuple):
    """Clean frames, the number of frames left of each clip, and one-line notes on the changes."""

    frames: Float32[np.ndarray, "F 54 2"]
    lengths: Int64[np.ndarray, " R"]
    notes: list[str]


def _is_at(frames: Float32[np.ndarray, "F 54 2"], x: int, y: int) -> Bool[np.ndarray, "F 54"]:
    # Axis by axis: reducing an axis of two is several times slower.
    return (frames[..., 0] == x) & (frames[..., 1] == y)


def _median(values: Float32[np.ndarray, " N"]) -> float:
    # `np.median` would load `numpy.ma` first: 10 ms, a third of the time a small file takes.
    low, high = (len(values) - 1) // 2, len(values) // 2
    ordered = np.partition(values, (low, high))
    return (float(ordered[low]) + float(ordered[high])) / 2


def padding_length(frames: Float32[np.ndarray, "T 54 2"]) -> int:
    """Count the frames of padding at the end of a clip, whose missing landmarks are all 0 or NaN.

    A trailing run of at least two frames without a landmark is padding. So are the repeats of the
    last frame where three or more are equal to the bit; the first of them was recorded.
    """
    if len(frames) < 2 or frames[-1].tobytes() != frames[-2].tobytes():
        return 0
    bits = frames.reshape(len(frames), -1).view(np.uint32)
    differs = np.flatnonzero((bits != bits[-1]).any(axis=1))
    run = len(frames) - (int(differs[-1]) + 1 if len(differs) else 0)
    if not np.nan_to_num(frames[-1]).any():
        return run
    return run - 1 if run >= 3 else 0


def padding_notes(cuts: Sequence[int]) -> list[str]:
    """Report the clips of which frames of padding were cut, given their number for every clip."""
    num_padded = sum(cut > 0 for cut in cuts)
    if not num_padded:
        return []
    return [f"{num_padded:,} of {len(cuts):,} clips: trailing padding cut ({sum(cuts):,} frames)"]


def _cut_all_padding(
    frames: Float32[np.ndarray, "F 54 2"], lengths: Int64[np.ndarray, " R"]
) -> tuple[Float32[np.ndarray, "G 54 2"], Int64[np.ndarray, " R"], list[str]]:
    clips = np.split(frames, np.cumsum(lengths)[:-1])
    cuts = [padding_length(clip) for clip in clips]
    if not any(cuts):
        return frames, lengths, []
    kept = [clip[: len(clip) - cut] for clip, cut in zip(clips, cuts, strict=True)]
    return np.concatenate(kept), lengths - np.array(cuts), padding_notes(cuts)


def _are_pixels(
    frames: Float32[np.ndarray, "F 54 2"], is_missing: Bool[np.ndarray, "F 54"]
) -> bool:
    """True if the median x of the noses, else of all landmarks, is too large for a share."""
    noses = frames[~is_missing[:, skeleton.NOSE], skeleton.NOSE, 0]
    x = noses if noses.size else frames[..., 0][~is_missing]
    return bool(x.size) and _median(x) > _LARGEST_SHARE


def _divide_pixels(
    frames: Float32[np.ndarray, "F 54 2"],
    is_missing: Bool[np.ndarray, "F 54"],
    lengths: Int64[np.ndarray, " R"],
    frame_sizes: Float[np.ndarray, "R 2"],
) -> tuple[Float32[np.ndarray, "F 54 2"], list[str]]:
    if not _are_pixels(frames, is_missing):
        return frames, []
    is_known: Bool[np.ndarray, " R"] = frame_sizes[:, 0] > 0  # False for NaN
    notes = []
    if is_known.any():
        shown = sorted({f"{width:g}x{height:g}" for width, height in frame_sizes[is_known]})
        sizes = shown[0] if len(shown) == 1 else f"{len(shown)} sizes, {shown[0]} to {shown[-1]}"
        notes.append(f"pixel coordinates: divided by the frame size ({sizes})")
    if not is_known.all():
        largest = float(frames[~is_missing].max())
        frame_sizes = np.where(is_known[:, None], frame_sizes, largest)
        notes.append(
            f"warning: pixel coordinates without a frame size in {np.count_nonzero(~is_known):,} "
            f"of {len(is_known):,} clips: x and y divided by one common scale ({largest:g}, the "
            "largest coordinate); set data.frame_size to the image's width and height"
        )
    per_frame = np.repeat(frame_sizes.astype(np.float32), lengths, axis=0)
    return frames / per_frame[:, None], notes


def _y_points_up(
    frames: Float32[np.ndarray, "F 54 2"], is_missing: Bool[np.ndarray, "F 54"]
) -> bool:
    """True if the median nose has a larger y than the median shoulder; False if unknown."""
    # A missing landmark of a file whose y axis was flipped is (0, 1) and says nothing either.
    is_missing = is_missing | _is_at(frames, 0, 1)
    noses = frames[~is_missing[:, skeleton.NOSE], skeleton.NOSE, 1]
    shoulders = frames[:, _SHOULDERS, 1][~is_missing[:, _SHOULDERS]]
    if not noses.size or not shoulders.size:
        return False
    return _median(noses) > _median(shoulders)


def clean_frames(
    frames: Float32[np.ndarray, "F 54 2"],
    lengths: Int64[np.ndarray, " R"],
    frame_sizes: Float[np.ndarray, "R 2"],
) -> Cleaned:
    """Cut padding, divide pixels, make y point down, and set missing landmarks to NaN.

    Args:
        frames: coordinates of all clips as the file has them; (0, 0) or NaN means missing. The
            array is not changed.
        lengths: frames of each clip.
        frame_sizes: width and height of each clip's image in pixels, NaN where unknown.
    """
    frames = frames.copy()
    frames[np.isnan(frames[..., 0]) | np.isnan(frames[..., 1])] = 0
    frames, kept_lengths, notes = _cut_all_padding(frames, lengths)
    # Taken from the file's own zeros: flipping y would move them away from (0, 0).
    is_missing = _is_at(frames, 0, 0)
    frames, scale_notes = _divide_pixels(frames, is_missing, kept_lengths, frame_sizes)
    if _y_points_up(frames, is_missing):
        frames[..., 1] = 1 - frames[..., 1]
        # A file whose zeros were flipped as well holds (0, 1) where nothing was detected.
        is_missing |= _is_at(frames, 0, 0)
        scale_notes.append("y axis points up: turned round, y becomes 1 - y")
    frames[is_missing] = np.nan
    return Cleaned(frames, kept_lengths, notes + scale_notes)


def neck_between_shoulders(frames: Float32[np.ndarray, "F 54 2"]) -> None:
    """Fill in the neck, in place: midway between the shoulders, missing where one of them is."""
    # In double precision: the sum of two large numbers may overflow single precision.
    frames[:, skeleton.NECK] = frames[:, _SHOULDERS].mean(axis=1, dtype=np.float64)


def _base(labels: Sequence[int] | dict[int, str]) -> int:
    return 0 if min(labels, default=0) == 0 else 1


def _shift_to_training(labels: Sequence[int], training: Sequence[int]) -> tuple[int, str]:
    """Compute the offset from an evaluation file's labels to the training file's, with a note."""
    if not training:
        return 0, "labels taken as they are: no class of the training set is a number"
    training_base = _base(training)
    # One past the training file's largest label: K itself where no label is left out.
    past_last = training[-1] + 1 - training_base
    base = 0 if 0 in labels else 1 if past_last in labels else training_base
    shift = training_base - base
    if shift == 0:
        return 0, f"labels count from {base}, as in the training set"
    return shift, (
        f"labels count from {base}, those of the training set from {training_base}: "
        f"shifted by {shift:+d}"
    )


def glosses_of(
    labels: Sequence[int], names: dict[int, str] | None, classes: Sequence[str] | None
) -> tuple[list[str | None], str]:
    """Give each label its gloss: the training file's integer as text, or its name.

    Args:
        labels: the integers of one file, none below 0.
        names: the name of each integer of the training file, if known.
        classes: the glosses of the training file, if this one is evaluated with them.

    Returns:
        The glosses, None where `names` lacks the integer, and a note on the base of the labels.
    """
    if classes is None:
        shift = 0
        note = f"labels count from {_base(labels if names is None else names)}"
    else:
        numbers = [int(name) for name in classes if name.isascii() and name.isdigit()]
        shift, note = _shift_to_training(labels, sorted(numbers if names is None else names))
    integers = [label + shift for label in labels]
    if names is None:
        return [str(integer) for integer in integers], note
    return [names.get(integer) for integer in integers], note


def _pairs_in(text: str) -> list[tuple[str, Any]]:
    """Return the labels and names of a JSON object, a JSON list or a CSV, unchecked."""
    if text.lstrip().startswith(("{", "[")):
        content = parse_json(text)
        pairs = content.items() if isinstance(content, dict) else enumerate(content)
        return [(str(label), name) for label, name in pairs]
    lines = [line for line in csv.reader(text.splitlines()) if any(cell.strip() for cell in line)]
    if lines and not lines[0][0].strip().isdecimal():
        lines = lines[1:]  # the header
    return [(line[0], line[1].strip() if len(line) == 2 else None) for line in lines]


def read_gloss_names(path: Path) -> dict[int, str]:
    """Read the name of each integer label.

    Args:
        path: a JSON object `{"0": "book"}`, a JSON list (its first entry names label 0), or a CSV
            with two columns, the integer and the name, with or without a header.

    Raises:
        DataError: the file is none of these, or names a label twice or two labels alike.
    """
    with reporting_text(path, "JSON or CSV"):
        pairs = _pairs_in(read_text(path))
    if not pairs:
        raise DataError(f"{path}: names no label; expected lines such as 0,book")
    names: dict[int, str] = {}
    labels: dict[str, str] = {}
    for row, (label, name) in enumerate(pairs):
        if not (isinstance(name, str) and label.strip().isdecimal()):
            raise DataError(
                f"{path}: row {row + 1}: found {quote(label)}: {quote(name)}; expected an integer "
                'and a name, such as 0,book, an object such as {"0": "book"}, or a list of names'
            )
        if int(label) in names or name in labels:
            raise DataError(
                f"{path}: row {row + 1}: found {quote(label)}: {quote(name)} beside "
                f"{quote(labels.get(name, label))}: {quote(names.get(int(label), name))}; "
                "every label has one name, and no name two labels"
            )
        names[int(label)], labels[name] = name, label
    return names
