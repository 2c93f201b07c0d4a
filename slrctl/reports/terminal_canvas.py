"""A skeleton in the characters of a terminal: braille dots in colour, or plain letters.

Braille has eight dots a character and needs colours to tell the hands apart; letters do without
colours and without Unicode, for pipes.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64

from slrctl.reports.skeletons import PARTS, Window

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
