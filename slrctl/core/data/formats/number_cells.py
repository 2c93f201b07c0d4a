"""Read a single list of numbers in a cell: slower than a block of them, but exact about faults."""

import re

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from slrctl.core.data.formats.reading import quote

_NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.I)
_NUMPY_SCALAR = re.compile(rb"np\.float\d+\(([^()]*)\)")
_EXAMPLE = "a list with one number a frame, such as [0.5, 0.51]"


def as_plain_lists(column: pa.Array) -> pa.Array:
    """Rewrite what numpy and Python print for a list of numbers into the plain form."""
    return pa.array([_as_plain_list(cell) for cell in column.to_pylist()], pa.binary())


def _as_plain_list(cell: bytes) -> bytes:
    cell = _NUMPY_SCALAR.sub(rb"\1", cell.strip()) if b"np.float" in cell else cell.strip()
    cell = cell.replace(b"None", b"nan").replace(b"null", b"nan")
    if b"," in cell or not (cell.startswith(b"[") and cell.endswith(b"]")):
        return cell
    return b"[" + b", ".join(cell[1:-1].split()) + b"]"


def parse_cell(cell: bytes) -> Float32[np.ndarray, " N"] | tuple[str, str]:
    """The numbers of one list, or the tally word and the story of what is wrong with it."""
    text = cell.strip()
    if not text:
        return "empty cell", f"found an empty cell, expected {_EXAMPLE}"
    if not (text.startswith(b"[") and text.endswith(b"]")):
        return "cell without a list", f"found {quote(cell)}, expected {_EXAMPLE}"
    inside = text[1:-1]
    if not inside.strip():
        return "empty list", f"found an empty list, expected {_EXAMPLE}"
    words = [word.strip() for word in inside.split(b",")]
    for place, word in enumerate(words):
        if not _NUMBER.fullmatch(word):
            return (
                "non-numeric cell",
                f"found {quote(word)} as number {place + 1} of the list, expected a number",
            )
    with np.errstate(over="ignore"):  # found and reported as infinite
        return np.array([float(word) for word in words]).astype(np.float32)
