"""Attention maps as lines of text: two frames a character in colour, shades where there is none."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from rich.text import Text

from slrctl.reports.attention_scale import Scale, relative, scale_for
from slrctl.reports.heat_colours import MISSING, heat_colours
from slrctl.reports.part_names import PART_NAMES
from slrctl.studies.inspection.record import AttentionMap

MAX_LINES = 36
"""Most lines a map takes; the longest clips are shown in blocks of frames."""
_SHADES = " ░▒▓█"
_CROSS = "\N{MULTIPLICATION SIGN}"
_GUTTER = 5  # frame numbers and the mark of a missing frame, before each line
_GAP = "   "
_NARROWEST = 40


class Window(NamedTuple):
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


def map_lines(maps: tuple[AttentionMap, ...], window: Window) -> list[Text]:
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
