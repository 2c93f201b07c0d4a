"""Attention maps and skeletons as lines of text, in colour where the terminal has any."""

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64
from matplotlib import colormaps
from matplotlib.colors import Normalize
from rich.text import Text

from slrctl.reports.attention_figures import HEAT, STREAM_NAMES, reading, relative, scale_for
from slrctl.reports.skeletons import STREAMS, Window, is_detected
from slrctl.studies.attention.record import AttentionMap

MAX_LINES = 36
"""Most lines a map takes; the longest clips are shown in blocks of frames."""
_COLOURS = colormaps[HEAT].with_extremes(bad="#969696")  # a grey that viridis does not have
_SHADES = " ░▒▓█"
_CROSS = "\N{MULTIPLICATION SIGN}"
_GUTTER = 5  # frame numbers and the mark of a missing frame, before each line
_GAP = "   "


class _Blocks(NamedTuple):
    """A map in blocks of `row_step` by `step` frames; NaN where no frame counts."""

    found: AttentionMap
    cells: Float[np.ndarray, "r c"]
    row_missing: Float[np.ndarray, " r"]
    column_missing: Float[np.ndarray, " c"]
    row_step: int
    step: int


def map_lines(maps: Sequence[AttentionMap], width: int, *, has_colour: bool) -> list[Text]:
    """Draw maps on one scale, beside each other as far as they fit into `width` characters.

    A map of one row shows its heads instead. Without colour, weights are drawn in shades.
    """
    width = max(width, 40)
    half = (width - len(_GAP)) // 2
    longest = max(found.weights.shape[-1] for found in maps)
    # Two beside each other, unless a single one would lose frames that the whole width can show.
    is_paired = len(maps) > 1 and (longest + _GUTTER <= half or width >= 100)
    blocks = [_fit(found, (half if is_paired else width) - _GUTTER) for found in maps]
    scale = scale_for([each.cells for each in blocks])
    drawn = [_map_lines(each, scale, has_colour=has_colour) for each in blocks]
    lines = []
    for first in range(0, len(drawn), 1 + is_paired):
        lines += _beside(drawn[first : first + 1 + is_paired])
    lines.append(_legend(scale, has_colour=has_colour))
    if scale.vmin:
        lines.append(_dim("(colours are stretched)"))
    if not all(found.rows_count.all() and found.keys_count.all() for found in maps):
        lines.append(_dim(f"{'grey' if has_colour else '·'} and {_CROSS}: hand missing"))
    if blocks[0].step > 1:
        lines.append(_dim(f"a cell is {blocks[0].step} frames"))
    return lines


def _dim(text: str) -> Text:
    return Text(f"{'':{_GUTTER}}{text}", style="dim")


def _fit(found: AttentionMap, room: int) -> _Blocks:
    step = math.ceil(found.weights.shape[2] / room)
    if found.weights.shape[1] == 1:
        weights = np.stack([relative(found, head)[0] for head in found.weights])
        row_is_missing, row_step = np.zeros(len(weights), bool), 1
    else:
        weights, row_is_missing = relative(found, found.mean), ~found.rows_count
        row_step = step = max(step, math.ceil(len(weights) / (2 * MAX_LINES)))
    return _Blocks(
        found,
        _block_means(weights, row_step, step),
        _block_means(row_is_missing[:, None], row_step, 1)[:, 0],
        _block_means(~found.keys_count[None], 1, step)[0],
        row_step,
        step,
    )


def _block_means(
    values: Float[np.ndarray, "R C"] | Bool[np.ndarray, "R C"], row_step: int, step: int
) -> Float[np.ndarray, "r c"]:
    """Average the known values of each block; NaN where there is none."""

    def summed(cells: Float[np.ndarray, "R C"]) -> Float[np.ndarray, "r c"]:
        rows = np.add.reduceat(cells, np.arange(0, len(cells), row_step), axis=0)
        return np.add.reduceat(rows, np.arange(0, cells.shape[1], step), axis=1)

    is_known = np.isfinite(values)
    sums, counts = summed(np.where(is_known, values, 0.0)), summed(is_known.astype(np.float64))
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def _map_lines(blocks: _Blocks, scale: Normalize, *, has_colour: bool) -> list[Text]:
    found = blocks.found
    down = "heads" if found.weights.shape[1] == 1 else STREAM_NAMES[found.reader]
    lines = [
        Text(f"{'':{_GUTTER}}{reading(found)}", style="bold"),
        _dim(f"down: {down}; across: {STREAM_NAMES[found.read]}"),
        _dim(_column_numbers(blocks)),
    ]
    for first in range(0, len(blocks.cells), 2):
        number = str(first * blocks.row_step + 1) if first % 10 == 0 else ""
        mark = _mark(blocks.row_missing[first : first + 2])
        line = Text(f"{number:>3}{mark} ", style="dim")
        cells = _cells(blocks.cells[first : first + 2], scale, has_colour=has_colour)
        lines.append(Text().append_text(line).append_text(cells))
    if blocks.column_missing.any():
        lines.append(_dim("".join(map(_mark, blocks.column_missing[:, None]))))
    return lines


def _mark(missing: Float[np.ndarray, " n"]) -> str:
    """Mark with a cross where the hand is missing throughout, with a dot where in places."""
    return _CROSS if missing.min() == 1 else "·" if missing.any() else " "


def _column_numbers(blocks: _Blocks) -> str:
    """Number the first frame of every tenth column, at its column and if it fits."""
    num_columns = blocks.cells.shape[1]
    line = ""
    for column in range(0, num_columns, 10):
        number = str(column * blocks.step + 1)
        if column + len(number) <= num_columns:
            line = f"{line:<{column}}{number}"
    return f"{line:<{num_columns}}"


def _cells(pair: Float[np.ndarray, "r c"], scale: Normalize, *, has_colour: bool) -> Text:
    """Draw one or two rows of cells in one line: the upper as ink, the lower as ground."""
    places = np.ma.masked_invalid(scale(pair))
    if not has_colour:
        levels = np.ma.filled(np.rint(places.mean(axis=0) * (len(_SHADES) - 1)), len(_SHADES))
        return Text("".join(f"{_SHADES}·"[int(level)] for level in levels))
    line = Text()
    for column in places.T:
        line.append("▀", style=" on ".join(_styles(column)))
    return line


def _styles(places: Float[np.ndarray, " n"]) -> list[str]:
    return ["rgb({},{},{})".format(*colour) for colour in _COLOURS(places, bytes=True)]


def _beside(blocks: list[list[Text]]) -> list[Text]:
    """Put blocks next to each other, each as wide as its widest line."""
    widths = [max(line.cell_len for line in block) for block in blocks]
    lines = []
    for number in range(max(map(len, blocks))):
        whole = Text()
        for block, width in zip(blocks, widths, strict=True):
            line = block[number].copy() if number < len(block) else Text()
            line.pad_right(width - line.cell_len)
            whole.append_text(line).append(_GAP)
        whole.rstrip()
        lines.append(whole)
    return lines


def _legend(scale: Normalize, *, has_colour: bool) -> Text:
    line = Text(f"{'':{_GUTTER}}{scale.vmin:.3g} ")
    if has_colour:
        for style in _styles(np.linspace(0, 1, 8)):
            line.append("█", style=style)
    else:
        line.append(f"[{_SHADES}]")
    return line.append(f" {scale.vmax:.3g} times uniform")


# Values of the dots of a braille character, by row and column (Unicode, block U+2800).
_BRAILLE = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
_FIRST_BRAILLE = 0x2800
# Terminals' characters are about twice as tall as wide.
_CHARACTER_RATIO = 2
LETTERS = (".", "L", "R")
"""Body, left and right hand where there are no colours."""


def fit_size(window: Window, columns: int, rows: int) -> tuple[int, int]:
    """Find the largest picture of a window, in characters, that fits into columns and rows."""
    wide = max(1, min(columns, math.floor(rows * _CHARACTER_RATIO * window.ratio)))
    return wide, max(1, min(rows, math.ceil(wide / (_CHARACTER_RATIO * window.ratio))))


def draw_braille(
    frame: Float[np.ndarray, "54 2"], aspect: float, window: Window, columns: int, rows: int
) -> list[Text]:
    """Draw a frame in braille, the hands over the body; a ring stands for a missing hand.

    The picture of the window has so many columns and rows of characters.
    """
    characters = np.full((rows, columns), _FIRST_BRAILLE)
    colours = np.full((rows, columns), "", dtype=object)
    for number, (x, y), is_missing in _dots(frame, aspect, window, 2 * columns, 4 * rows):
        cells = (y // 4, x // 2)
        if is_missing:
            characters[cells] = ord("\u25cb")
        else:
            np.bitwise_or.at(characters, cells, _BRAILLE[y % 4, x % 2])
        colours[cells] = STREAMS[number].color
    characters[characters == _FIRST_BRAILLE] = ord(" ")
    lines = []
    for row in zip(characters.tolist(), colours.tolist(), strict=True):
        runs = groupby(zip(*row, strict=True), key=itemgetter(1))
        lines.append(
            Text.assemble(*(("".join(chr(c) for c, _ in run), colour) for colour, run in runs))
        )
    return lines


def draw_letters(
    frame: Float[np.ndarray, "54 2"], aspect: float, window: Window, columns: int, rows: int
) -> list[str]:
    """Draw a frame in plain letters: see `LETTERS`; l and r stand where a hand is missing."""
    characters = np.full((rows, columns), " ")
    for number, (x, y), is_missing in _dots(frame, aspect, window, columns, rows):
        characters[y, x] = LETTERS[number].lower() if is_missing else LETTERS[number]
    return ["".join(row).rstrip() for row in characters.tolist()]


def _dots(
    frame: Float[np.ndarray, "54 2"], aspect: float, window: Window, width: int, height: int
) -> Iterator[tuple[int, Int64[np.ndarray, "2 N"], bool]]:
    """Yield the dots of each stream that lie in the picture; last the wrists of missing hands."""
    points = np.asarray(frame, np.float64) * [aspect, 1.0] - [window.left, window.top]
    size = [window.right - window.left, window.bottom - window.top]
    places = points / size * [width - 1, height - 1]
    is_present = is_detected(places)
    missing = []
    for number, stream in enumerate(STREAMS):
        lines = [places[stream.landmarks][is_present[stream.landmarks]]]
        for first, second in stream.edges:
            if is_present[first] and is_present[second]:
                gap = places[second] - places[first]
                # A landmark far outside would make any number of dots; past this none is seen.
                steps = min(math.ceil(float(np.abs(gap).max())) + 1, 2000)
                lines.append(places[first] + gap * np.linspace(0, 1, steps)[:, None])
        if stream.wrist is not None and is_present[stream.wrist] and not len(lines[0]):
            missing.append((number, places[[stream.wrist]], True))
        yield number, _inside(np.concatenate(lines), width, height), False
    for number, wrist, is_missing in missing:
        yield number, _inside(wrist, width, height), is_missing


def _inside(places: Float[np.ndarray, "N 2"], width: int, height: int) -> Int64[np.ndarray, "2 M"]:
    dots = np.round(places).astype(np.int64)
    return dots[((dots >= 0) & (dots < [width, height])).all(axis=1)].T
