"""Write small files in the SPOTER layout, for the tests of its reader."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from slrctl.core import skeleton

NOSE, NECK, RIGHT_SHOULDER, LEFT_SHOULDER = 0, 1, 6, 7


def person(num_frames: int, seed: int = 0) -> np.ndarray:
    """Random landmarks in five decimals, none missing, the nose above the shoulders."""
    rng = np.random.default_rng(seed)
    landmarks = rng.uniform(0.2, 0.8, (num_frames, skeleton.NUM_LANDMARKS, 2))
    landmarks[:, NOSE] = [0.5, 0.3]
    landmarks[:, RIGHT_SHOULDER] = [0.4, 0.5]
    landmarks[:, LEFT_SHOULDER] = [0.6, 0.52]
    return landmarks.round(5)


def column_names(*, numbered: bool = False, with_neck: bool = True) -> list[str]:
    names = [name for name in skeleton.LANDMARK_NAMES if with_neck or name != "neck"]
    if numbered:
        names = [name.replace("_left", "_0").replace("_right", "_1") for name in names]
    return [f"{name}_{axis}" for name in names for axis in "XY"]


def cells_of(landmarks: np.ndarray, *, with_neck: bool = True) -> list[str]:
    """One cell a coordinate: NaN is written as 0.0, as the layout does."""
    kept = [index for index in range(54) if with_neck or index != NECK]
    values = np.nan_to_num(landmarks, nan=0.0)[:, kept].reshape(len(landmarks), -1)
    return [str(column.tolist()) for column in values.T]


def write_csv(
    path: Path,
    clips: Sequence[np.ndarray],
    labels: Sequence[object] | None = None,
    *,
    numbered: bool = False,
    with_neck: bool = True,
    extra: Mapping[str, Sequence[object]] | None = None,
    changes: Mapping[tuple[int, str], str] | None = None,
) -> Path:
    """Write clips, with further columns and with some cells changed: (row from 0, column)."""
    extra = extra or {}
    header = ["labels", *extra, *column_names(numbered=numbered, with_neck=with_neck)]
    labels = range(len(clips)) if labels is None else labels
    rows = [
        [
            str(label),
            *(str(values[row]) for values in extra.values()),
            *cells_of(clip, with_neck=with_neck),
        ]
        for row, (label, clip) in enumerate(zip(labels, clips, strict=True))
    ]
    for (row, column), text in (changes or {}).items():
        rows[row][header.index(column)] = text
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path
