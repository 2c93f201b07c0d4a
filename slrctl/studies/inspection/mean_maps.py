"""Maps of clips of any length on one grid of relative time, and their means."""

import numpy as np
from jaxtyping import Float

from slrctl.studies.inspection.record import AttentionMap

GRID = 20
"""Cells a side: a twentieth of the clip each."""


def on_grid(found: AttentionMap, grid: int = GRID) -> Float[np.ndarray, "G G"]:
    """A head-averaged map in relative time, over what uniform attention would be: 1 is uniform.

    Where hands are missing differs from clip to clip, and without the division a mean over clips
    would mostly show that. NaN where the reader or what it reads is missing throughout a part.
    """
    if not found.keys_count.any():
        return np.full((grid, grid), np.nan)
    shares = overlap(len(found.rows_count), grid)
    rows = shares * found.rows_count
    per_frame = (shares / shares.sum(axis=0)).T
    uniform = np.tile(found.keys_count / found.keys_count.sum(), (len(found.rows_count), 1))
    expected = rows @ uniform @ per_frame
    received = rows @ found.mean.astype(np.float64) @ per_frame
    # Below this a part of the clip holds a sliver of a frame only.
    is_there = expected > 1e-9
    return np.divide(received, expected, out=np.full_like(received, np.nan), where=is_there)


def overlap(num_frames: int, grid: int) -> Float[np.ndarray, "G T"]:
    """How much of each frame lies in each of `grid` equal parts of the clip, in clip lengths."""
    parts, frames = np.arange(grid + 1) / grid, np.arange(num_frames + 1) / num_frames
    begin = np.maximum(parts[:-1, None], frames[None, :-1])
    end = np.minimum(parts[1:, None], frames[None, 1:])
    return np.maximum(end - begin, 0.0)
