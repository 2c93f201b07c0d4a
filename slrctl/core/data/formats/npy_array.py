"""Read a .npy file without trusting it: nothing is unpickled, evaluated or allocated on its word.

`numpy.load` evaluates the header as Python and takes memory for the shape it claims; here the
header must have the one form that `numpy.save` writes, and the shape must fit the file's size.
"""

import math
import re
from pathlib import Path

import numpy as np
from jaxtyping import Float

from slrctl.core.data.formats.reading import ClipProblem, quote, read_limited

_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 4096
_HEADER = re.compile(
    rb"\{'descr': '([^']{1,20})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d+, )*(?:\d+,?)?)\),? ?\}\s*"
)
_NUMBER_TYPE = re.compile(r"[<>|=][fiu][1248]")


def read_npy(path: Path, *, largest_bytes: int) -> Float[np.ndarray, "..."]:
    """Read an array of real numbers.

    Args:
        path: a file that `numpy.save` wrote.
        largest_bytes: what is refused beyond this size, before it is read.

    Raises:
        ClipProblem: the file is too large, cut off, or holds anything but numbers.
    """
    content = read_limited(path, largest_bytes)
    if not content.startswith(_MAGIC) or len(content) < 12:
        found = f"starts with {quote(content[:8])}" if content else "is empty"
        raise ClipProblem("no .npy file", f"{found}, expected an array saved by numpy.save")
    # Version 1 has two bytes for the length of the header, later ones four.
    start = 10 if content[6] == 1 else 12
    length = int.from_bytes(content[8:start], "little")
    header = _HEADER.fullmatch(content[start : start + min(length, _LONGEST_HEADER)])
    if header is None:
        found = quote(content[start : start + 40])
        raise ClipProblem("damaged .npy header", f"has the header {found}, expected numpy.save's")
    kind = header[1].decode("ascii", "replace")
    if not _NUMBER_TYPE.fullmatch(kind) or kind[1:] == "f1":
        story = "Python objects, which are never loaded" if "O" in kind else f"type {quote(kind)}"
        raise ClipProblem("no numbers", f"holds {story}; expected float64 or float32")
    shape = tuple(int(size[:18]) for size in header[3].split(b",") if size.strip())
    if len(shape) > 2:
        raise ClipProblem("wrong shape", f"has {len(shape)} axes, expected one vector a frame")
    wanted = math.prod(shape) * int(kind[2])
    found = len(content) - start - length
    if found != wanted:
        state = "cut off" if found < wanted else "damaged"
        raise ClipProblem(
            f"{state} file",
            f"is {state}: found {found:,} bytes of numbers, expected {wanted:,} for its shape "
            f"{shape}; fetch or write it again",
        )
    numbers = np.frombuffer(content, np.dtype(kind), math.prod(shape), start + length)
    order = "F" if header[2] == b"True" else "C"
    return numbers.reshape(shape, order=order).astype(np.float64)
