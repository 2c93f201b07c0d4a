"""Attention maps as lines of text: two frames a character in colour, shades where there is none."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8
from rich.text import Text

from slrctl.reports.attention_figures import PART_NAMES, Scale, relative, scale_for
from slrctl.reports.skeletons import PARTS, Window
from slrctl.studies.attention.record import AttentionMap

# Nine of viridis' colours (van der Walt and Smith, 2015, CC0), evenly spaced, as red, green, blue.
_STOPS = np.array(
    [
        (68, 1, 84),
        (71, 45, 123),
        (59, 82, 139),
        (44, 114, 142),
        (33, 145, 140),
        (40, 174, 128),
        (94, 201, 98),
        (173, 220, 48),
        (253, 231, 37),
    ],
    np.float64,
)
MISSING = (150, 150, 150)
"""Frames in which a hand was not detected: a grey that viridis does not have."""


def heat_colours(shares: Float[np.ndarray, "*axes"]) -> UInt8[np.ndarray, "*axes 3"]:
    """Red, green and blue for numbers from 0 to 1."""
    place = np.clip(shares, 0.0, 1.0) * (len(_STOPS) - 1)
    below = np.minimum(place.astype(np.int64), len(_STOPS) - 2)
    part = (place - below)[..., None]
    return np.rint((1 - part) * _STOPS[below] + part * _STOPS[below + 1]).astype(np.uint8)


MAX_LINES = 36
"""Most lines a map takes; the longest clips are shown in blocks of frames."""
_SHADES = " ░▒▓█"
_CROSS = "\N{MULTIPLICATION SIGN}"
_GUTTER = 5  # frame numbers and the mark of a missing frame, before each line
_GAP = "   "
_NARROWEST = 40


class TextArea(NamedTuple):
    """Where the maps are shown: columns of text, and whether there is colour."""

    width: int
    has_colour: bool


class _Picture(NamedTuple):
    """A map made to fit: cells of `row_step` by `step` frames, NaN where no frame counts."""

    cells: Float[np.ndarray, "r c"]
    row_missing: Float[np.ndarray, " r"]
    column_missing: Float[np.ndarray, " c"]
    row_step: int
    step: int


def map_lines(maps: tuple[AttentionMap, ...], window: TextArea) -> list[Text]:
    """Draw maps beside each other as far as they fit, below each other otherwise.

    All have one scale, which the last lines tell. A map of one row shows its heads instead.
    """
    width = max(window.width, _NARROWEST)
    half = (width - len(_GAP)) // 2
    longest = max(found.weights.shape[-1] for found in maps)
    # Two beside each other, unless a single one would lose frames that the whole width can show.
    is_paired = len(maps) > 1 and (longest + _GUTTER <= half or width >= 100)
    pictures = [_fit(found, (half if is_paired else width) - _GUTTER) for found in maps]
    scale = scale_for([picture.cells for picture in pictures])
    blocks = [
        _block(found, picture, scale, has_colour=window.has_colour)
        for found, picture in zip(maps, pictures, strict=True)
    ]
    lines: list[Text] = []
    together = 2 if is_paired else 1
    for first in range(0, len(blocks), together):
        lines += _beside(blocks[first : first + together])
    step = pictures[0].step
    each = "" if step == 1 else f"a cell is {step} frames"
    is_any_missing = not all(found.rows_count.all() and found.keys_count.all() for found in maps)
    marks = f"{'grey' if window.has_colour else '·'} and {_CROSS}: hand missing"
    remarks = [
        "(colours are stretched)" if scale.is_stretched else "",
        marks if is_any_missing else "",
        each,
    ]
    lines.append(_legend(scale, has_colour=window.has_colour))
    return lines + [Text(f"{'':{_GUTTER}}{text}", style="dim") for text in remarks if text]


def _fit(found: AttentionMap, room: int) -> _Picture:
    is_single = found.weights.shape[1] == 1
    if is_single:
        heads = [relative(found, head)[0] for head in found.weights]
        weights, row_is_missing = np.stack(heads), np.zeros(len(heads))
    else:
        weights, row_is_missing = relative(found, found.mean), ~found.rows_count
    step = max(1, -(-weights.shape[1] // room))
    if not is_single:
        step = max(step, -(-len(weights) // (2 * MAX_LINES)))
    row_step = 1 if is_single else step
    known = np.isfinite(weights)
    sums = _summed(_summed(np.where(known, weights, 0.0), row_step).T, step).T
    counts = _summed(_summed(known.astype(np.float64), row_step).T, step).T
    return _Picture(
        np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0),
        _share(row_is_missing, row_step),
        _share(~found.keys_count, step),
        row_step,
        step,
    )


def _summed(values: Float[np.ndarray, "..."], step: int) -> Float[np.ndarray, "..."]:
    return np.add.reduceat(values, np.arange(0, len(values), step), axis=0)


def _share(flags: Bool[np.ndarray, " T"] | Float[np.ndarray, " T"], step: int) -> np.ndarray:
    """The share of flags set in each block of frames."""
    numbers = flags.astype(np.float64)
    return _summed(numbers, step) / _summed(np.ones(len(numbers)), step)


def _block(found: AttentionMap, picture: _Picture, scale: Scale, *, has_colour: bool) -> list[Text]:
    """One map with its title, its axes and its marks."""
    reader, read = PART_NAMES[found.reader], PART_NAMES[found.read]
    is_single = found.weights.shape[1] == 1
    title = f"{reader} reads {read}" if found.reader != found.read else f"{reader} reads itself"
    rows = "heads" if is_single else reader
    lines = [
        Text(f"{'':{_GUTTER}}{title}", style="bold"),
        Text(f"{'':{_GUTTER}}down: {rows}; across: {read}", style="dim"),
        Text(f"{'':{_GUTTER}}{_column_numbers(picture)}", style="dim"),
    ]
    for first in range(0, len(picture.cells), 2):
        label = f"{first * picture.row_step + 1:>3}" if first % 10 == 0 else "   "
        mark = _mark(picture.row_missing[first : first + 2])
        line = Text.assemble((f"{label}{mark} ", "dim"))
        line.append_text(_cells(picture.cells[first : first + 2], scale, has_colour=has_colour))
        lines.append(line)
    if picture.column_missing.any():
        marks = "".join(_mark(share) for share in picture.column_missing[:, None])
        lines.append(Text(f"{'':{_GUTTER}}{marks}", style="dim"))
    return lines


def _mark(missing: Float[np.ndarray, " n"]) -> str:
    """A cross where the part is missing throughout, a dot where it is in places."""
    return _CROSS if missing.min() == 1 else "·" if missing.any() else " "


def _column_numbers(picture: _Picture) -> str:
    """The number of the first frame of every tenth column, where that starts and if it fits."""
    num_columns = picture.cells.shape[1]
    line = ""
    for column in range(0, num_columns, 10):
        number = str(column * picture.step + 1)
        if column + len(number) <= num_columns:
            line = f"{line:<{column}}{number}"
    return f"{line:<{num_columns}}"


def _cells(pair: Float[np.ndarray, "r c"], scale: Scale, *, has_colour: bool) -> Text:
    """One or two rows of cells in one line: the upper as ink, the lower as ground."""
    known = np.isfinite(pair)
    places = np.where(known, scale.place(np.nan_to_num(pair)), 0.0)
    if not has_colour:
        means = places.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        levels = np.where(known.any(axis=0), np.rint(means * (len(_SHADES) - 1)), len(_SHADES))
        return Text("".join(f"{_SHADES}·"[int(level)] for level in levels))
    colours = np.where(known[..., None], heat_colours(places), np.array(MISSING, np.uint8))
    line = Text()
    for column in range(pair.shape[1]):
        style = "rgb({},{},{})".format(*colours[0, column])
        if len(pair) == 2:
            style += " on rgb({},{},{})".format(*colours[1, column])
        line.append("▀", style=style)
    return line


def _beside(blocks: list[list[Text]]) -> list[Text]:
    """Blocks next to each other, each as wide as its widest line."""
    widths = [max(line.cell_len for line in block) for block in blocks]
    lines = []
    for number in range(max(map(len, blocks))):
        whole = Text()
        for block, width in zip(blocks, widths, strict=True):
            part = block[number].copy() if number < len(block) else Text()
            part.pad_right(width - part.cell_len)
            whole.append_text(part)
            whole.append(_GAP)
        whole.rstrip()
        lines.append(whole)
    return lines


def _legend(scale: Scale, *, has_colour: bool) -> Text:
    line = Text(f"{'':{_GUTTER}}{scale.low:.3g} ")
    if has_colour:
        for place in np.linspace(0, 1, 8):
            line.append("█", style="rgb({},{},{})".format(*heat_colours(place)))
    else:
        line.append(f"[{_SHADES}]")
    line.append(f" {scale.high:.3g} times uniform")
    return line


# Values of the dots of a braille character, by row and column (Unicode, block U+2800).
_BRAILLE = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
_FIRST_BRAILLE = 0x2800
# Terminals' characters are about twice as tall as wide.
_CHARACTER_RATIO = 2
LETTERS = (".", "L", "R")
"""What body, left and right hand are drawn with where there are no colours."""
_RINGS = ("", "l", "r")
_RING = "\u25cb"


class Run(NamedTuple):
    """Text with one colour: the index of its part among `PARTS`, None for none."""

    text: str
    part: int | None


Rows = list[list[Run]]


def fit_size(window: Window, columns: int, rows: int) -> tuple[int, int]:
    """The largest picture of a window, in characters, that fits into so many columns and rows."""
    wide = min(columns, math.floor(rows * _CHARACTER_RATIO * window.ratio))
    wide = max(wide, 1)
    return wide, max(1, min(rows, math.ceil(wide / (_CHARACTER_RATIO * window.ratio))))


def draw_braille(
    frame: Float[np.ndarray, "54 2"], aspect: float, window: Window, columns: int, rows: int
) -> Rows:
    """Draw a frame in braille, the hands over the body; a ring stands for a missing hand.

    Args:
        frame: x and y divided by the size of the image, NaN where missing.
        aspect: width / height of the image.
        window: what to show of it.
        columns: width of the picture in characters.
        rows: height of the picture in characters.
    """
    values = np.zeros((rows, columns), dtype=np.int64)
    owner = np.full((rows, columns), -1)
    for number, (x, y) in _dots(frame, aspect, window, 2 * columns, 4 * rows):
        np.bitwise_or.at(values, (y // 4, x // 2), _BRAILLE[y % 4, x % 2])
        owner[y // 4, x // 2] = number
    characters = np.array([chr(_FIRST_BRAILLE + value) for value in range(256)])[values]
    characters[values == 0] = " "
    for number, (x, y) in _missing_hands(frame, aspect, window, columns, rows):
        characters[y, x], owner[y, x] = _RING, number
    return _runs(characters, owner)


def draw_letters(
    frame: Float[np.ndarray, "54 2"], aspect: float, window: Window, columns: int, rows: int
) -> list[str]:
    """Draw a frame in plain letters: see `LETTERS`; l and r stand where a hand is missing."""
    characters = np.full((rows, columns), " ")
    for number, (x, y) in _dots(frame, aspect, window, columns, rows):
        characters[y, x] = LETTERS[number]
    for number, (x, y) in _missing_hands(frame, aspect, window, columns, rows):
        characters[y, x] = _RINGS[number]
    return ["".join(row).rstrip() for row in characters.tolist()]


def _places(
    frame: Float[np.ndarray, "54 2"], aspect: float, window: Window, width: int, height: int
) -> Float[np.ndarray, "54 2"]:
    """Where landmarks are on a grid of so many dots, from 0 to one less; NaN where missing."""
    points = np.asarray(frame, np.float64) * [aspect, 1.0] - [window.left, window.top]
    size = np.array([window.right - window.left, window.bottom - window.top])
    return points / size * [width - 1, height - 1]


def _dots(
    frame: Float[np.ndarray, "54 2"], aspect: float, window: Window, width: int, height: int
) -> Iterator[tuple[int, Int64[np.ndarray, "2 N"]]]:
    """The dots of each part's lines that lie in the picture."""
    places = _places(frame, aspect, window, width, height)
    for number, part in enumerate(PARTS):
        lines = [
            _line(places[first], places[second])
            for first, second in part.edges
            if np.isfinite(places[[first, second]]).all()
        ]
        lone = places[part.landmarks]
        lines.append(lone[np.isfinite(lone).all(axis=1)])
        dots = np.round(np.concatenate(lines)).astype(np.int64)
        is_inside = ((dots >= 0) & (dots < [width, height])).all(axis=1)
        yield number, dots[is_inside].T


def _line(
    first: Float[np.ndarray, " 2"], second: Float[np.ndarray, " 2"]
) -> Float[np.ndarray, "N 2"]:
    # A landmark far outside would make a line of any number of dots; past this none is seen.
    steps = min(math.ceil(float(np.abs(second - first).max())) + 1, 2000)
    return first + (second - first) * np.linspace(0, 1, steps)[:, None]


def _missing_hands(
    frame: Float[np.ndarray, "54 2"], aspect: float, window: Window, columns: int, rows: int
) -> Iterator[tuple[int, tuple[int, int]]]:
    """The characters at the wrists of hands that were not detected."""
    places = _places(frame, aspect, window, columns, rows)
    for number, part in enumerate(PARTS):
        if part.wrist is None or np.isfinite(places[part.landmarks]).all(axis=1).any():
            continue
        if np.isfinite(places[part.wrist]).all():
            x, y = np.round(places[part.wrist]).astype(int).tolist()
            if 0 <= x < columns and 0 <= y < rows:
                yield number, (x, y)


def _runs(characters: np.ndarray, owner: Int64[np.ndarray, "R C"]) -> Rows:
    """Join neighbours of one colour."""
    rows = []
    for texts, owners in zip(characters.tolist(), owner.tolist(), strict=True):
        runs: list[Run] = []
        for text, number in zip(texts, owners, strict=True):
            part = None if number < 0 else number
            if runs and runs[-1].part == part:
                runs[-1] = Run(runs[-1].text + text, part)
            else:
                runs.append(Run(text, part))
        rows.append(runs)
    return rows
