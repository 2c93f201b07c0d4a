"""Find the columns of the SPOTER/WLASL layout in the header of a CSV."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from slrctl.core import skeleton
from slrctl.core.data.formats.reading import count_of, some_of
from slrctl.errors import DataError

LABELS, FPS, WIDTH, HEIGHT = "labels", "video_fps", "video_size_width", "video_size_height"
_EXPECTED = (
    "expected <landmark>_X and <landmark>_Y, such as nose_X for the body and wrist_left_X, "
    "wrist_right_X (or wrist_0_X, wrist_1_X) for the hands"
)


class SpoterColumns(NamedTuple):
    """Positions of columns in the header; None where the file has none.

    `coordinates` has a position for each x and y, in the order of the landmarks; those of the neck
    are left out if the file has no neck, and `landmarks` says which landmarks they belong to.
    """

    labels: int
    coordinates: list[int]
    landmarks: list[int]
    fps: int | None
    width: int | None
    height: int | None
    ignored: list[str]

    @property
    def has_neck(self) -> bool:
        return skeleton.NECK in self.landmarks


def is_spoter_header(header: Sequence[str]) -> bool:
    """Whether a header names at least one of the layout's coordinates."""
    known = {spelling for name in skeleton.LANDMARK_NAMES for spelling in _spellings(name, "X")}
    return not known.isdisjoint(header)


def find_columns(path: Path, header: Sequence[str]) -> SpoterColumns:
    """Find every column we read.

    Raises:
        DataError: a column is missing, or stands in the header twice.
    """
    positions = {name: index for index, name in enumerate(header)}
    has_neck = any(name in positions for name in ("neck_X", "neck_Y"))
    landmarks = [
        index for index in range(skeleton.NUM_LANDMARKS) if has_neck or index != skeleton.NECK
    ]
    wanted = [(skeleton.LANDMARK_NAMES[index], axis) for index in landmarks for axis in "XY"]
    found = [
        [name for name in _spellings(landmark, axis) if name in positions]
        for landmark, axis in wanted
    ]
    _check_complete(path, header, wanted, found)
    _check_unique(path, header, found)
    names = [spellings[0] for spellings in found]
    used = {*names, LABELS, FPS, WIDTH, HEIGHT}
    return SpoterColumns(
        labels=positions[LABELS],
        coordinates=[positions[name] for name in names],
        landmarks=landmarks,
        fps=positions.get(FPS),
        width=positions.get(WIDTH),
        height=positions.get(HEIGHT),
        ignored=[name for name in header if name not in used],
    )


def _spellings(landmark: str, axis: str) -> list[str]:
    """The names a coordinate's column may have: `wrist_left_X` is also written `wrist_0_X`."""
    name, _, side = landmark.partition("_")
    if not side:
        return [f"{name}_{axis}"]
    return [f"{landmark}_{axis}", f"{name}_{'0' if side == 'left' else '1'}_{axis}"]


def _check_complete(
    path: Path,
    header: Sequence[str],
    wanted: Sequence[tuple[str, str]],
    found: Sequence[Sequence[str]],
) -> None:
    if not any(found):
        raise DataError(
            f"{path}: has no column with landmarks: found {some_of(list(header), 4)}; "
            f"{_EXPECTED}, and a column 'labels', separated by commas"
        )
    if LABELS not in header:
        raise DataError(
            f"{path}: column 'labels' is missing; expected the class of each clip as an integer, "
            "add it to the file"
        )
    missing = [
        f"{landmark}_{axis}"
        for (landmark, axis), names in zip(wanted, found, strict=True)
        if not names
    ]
    if missing:
        others = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise DataError(
            f"{path}: column {missing[0]!r} is missing{others}: found "
            f"{count_of(len(wanted) - len(missing), 'column')} of {len(wanted)}; {_EXPECTED}"
        )


def _check_unique(path: Path, header: Sequence[str], found: Sequence[Sequence[str]]) -> None:
    for names in found:
        if len(names) > 1:
            raise DataError(
                f"{path}: columns {names[0]!r} and {names[1]!r} are the same landmark; "
                "remove one of them"
            )
    counts = Counter(header)
    used = [names[0] for names in found] + [LABELS, FPS, WIDTH, HEIGHT]
    for name in used:
        if counts[name] > 1:
            raise DataError(
                f"{path}: column {name!r} stands in the header {counts[name]} times; keep one"
            )
