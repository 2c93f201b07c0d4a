"""What a row of the SPOTER layout holds beside its landmarks: label, frame rate, frame size."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float

from slrctl.core.data.formats.csv_table import CellTable
from slrctl.core.data.formats.labels import glosses_of, read_gloss_names
from slrctl.core.data.formats.reading import BadClips, quote
from slrctl.core.data.formats.spoter_columns import HEIGHT, LABELS, WIDTH, SpoterColumns
from slrctl.settings import DataSettings


def _column(table: CellTable, position: int) -> Iterator[tuple[int, str]]:
    """The cells of one column as text, each with the row of the file."""
    cells = [cell for block in table.blocks for cell in block.column(position).to_pylist()]
    return zip(table.rows.tolist(), (cell.decode().strip() for cell in cells), strict=True)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def read_positive_numbers(
    table: CellTable, position: int | None, name: str, bad: BadClips
) -> list[float | None]:
    """A number for each row; None where the column, or the cell in it, is empty, nan or 0."""
    if position is None:
        return [None] * len(table.rows)
    numbers: list[float | None] = []
    for row, text in _column(table, position):
        is_unknown = text.lower() in ("", "nan", "none", "null")
        number = 0.0 if is_unknown else _number(text)
        if not (math.isfinite(number) and number >= 0):
            message = f"found {quote(text)}, expected a positive number, or nothing if unknown"
            bad.add(row, f"bad {name}", message, column=name)
        numbers.append(number or None)
    return numbers


def read_frame_sizes(
    table: CellTable, columns: SpoterColumns, settings: DataSettings, bad: BadClips
) -> Float[np.ndarray, "R 2"]:
    """Width and height of each row's image, from the file, else the settings, else NaN."""
    widths = read_positive_numbers(table, columns.width, WIDTH, bad)
    heights = read_positive_numbers(table, columns.height, HEIGHT, bad)
    default = settings.frame_size or (math.nan, math.nan)
    return np.array(
        [(w, h) if w and h else default for w, h in zip(widths, heights, strict=True)], dtype=float
    )


def _labels(table: CellTable, columns: SpoterColumns, bad: BadClips) -> dict[int, int]:
    """The integer label of each row that has one."""
    labels = {}
    for row, text in _column(table, columns.labels):
        number = _number(text)
        if math.isfinite(number) and number >= 0 and number == int(number):
            labels[row] = int(number)
        else:
            message = f"found {quote(text)}, expected a whole number from 0 up"
            bad.add(row, "label that is no integer", message, column=LABELS)
    return labels


def read_glosses(
    table: CellTable,
    columns: SpoterColumns,
    settings: DataSettings,
    classes: Sequence[str] | None,
    bad: BadClips,
) -> tuple[dict[int, str], str]:
    """The gloss of each row that has one, and a note on what the labels count from."""
    names = None if settings.gloss_names is None else read_gloss_names(settings.gloss_names)
    labels = _labels(table, columns, bad)
    found, note = glosses_of(list(labels.values()), names, classes)
    glosses = {}
    for (row, label), gloss in zip(labels.items(), found, strict=True):
        if gloss is not None:
            glosses[row] = gloss
            continue
        message = (
            f"found {label}, which {settings.gloss_names} does not name; "
            "expected a name for every integer of the training file"
        )
        bad.add(row, "label without a name", message, column=LABELS)
    return glosses, note
