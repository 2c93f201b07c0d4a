"""When things happen in a clip: approach, stroke and return of each hand, and their lag.

Everything is drawn for many clips at once. Hands are in the order dominant, other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt64

from slrctl.core.data.synthetic.lexicon import Sign
from slrctl.core.seeding import counter_uniform

# How long a sign with this movement takes, over the usual.
DURATIONS = {"line": 0.9, "drop": 0.9, "arc": 1.0, "circle": 1.1, "zigzag": 1.1, "repeat": 1.0}


@dataclass(frozen=True, eq=False)
class Timing:
    """The clock of each clip, in frames (not whole ones) from the hand's own beginning."""

    num_frames: Int64[np.ndarray, " B"]
    lag: Int64[np.ndarray, " B"]
    """Frame i of the left hand does what frame i + lag of the right hand does."""
    delay: Int64[np.ndarray, "B 2"]
    """The hand's own beginning, after the clip's."""
    marks: Float[np.ndarray, "B 4"]
    """When a hand starts to rise, starts its stroke, ends it, and is down again."""
    warp: Float[np.ndarray, " B"]
    """Above 0 the stroke starts slowly, below 0 fast; within +-1."""


def draw_timing(
    keys: UInt64[np.ndarray, " B"],
    signs: Sequence[Sign],
    tempo: float,
    frames: tuple[int, int],
    max_lag: int,
    *,
    is_left_handed: bool,
) -> Timing:
    """Draw the clock of every clip.

    Args:
        keys: one random key a clip.
        signs: the sign of each clip.
        tempo: frames the signer takes for a sign of usual length.
        frames: fewest and most frames of a clip.
        max_lag: largest lag, either way, of signs in which both hands move.
        is_left_handed: whether the dominant hand is the left one.
    """
    share = counter_uniform(keys, 7)
    both_move = np.array([sign.kind in ("mirrored", "alternating") for sign in signs])
    lag = np.floor(share[:, 0] * (2 * max_lag + 1)).astype(np.int64) - max_lag
    lag = np.where(both_move, lag, 0)
    usual = tempo * np.array([DURATIONS[sign.movement] for sign in signs])
    own = np.rint(usual * (0.78 + 0.44 * share[:, 1])).astype(np.int64)
    own = np.clip(own, frames[0], frames[1] - np.abs(lag))

    # Idle, approach, stroke, return. What is left is idle again; a late return is cut off, as in
    # real clips, but never a stroke.
    parts = own[:, None] * np.stack(
        [
            0.36 * share[:, 2],
            0.10 + 0.07 * share[:, 3],
            0.34 + 0.12 * share[:, 4],
            0.10 + 0.07 * share[:, 5],
        ],
        axis=-1,
    )
    left_right = np.stack([np.maximum(-lag, 0), np.maximum(lag, 0)], axis=-1)
    return Timing(
        num_frames=own + np.abs(lag),
        lag=lag,
        delay=left_right if is_left_handed else left_right[:, ::-1],
        marks=np.cumsum(parts, axis=-1),
        warp=1.4 * share[:, 6] - 0.7,
    )


def smoothstep(x: Float[np.ndarray, "*S"]) -> Float[np.ndarray, "*S"]:
    """Rise from 0 at 0 to 1 at 1, at rest at both ends."""
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3.0 - 2.0 * x)


def raised_and_phase(
    timing: Timing, clip: Int64[np.ndarray, " N"], frame: Int64[np.ndarray, " N"]
) -> tuple[Float[np.ndarray, "N 2"], Float[np.ndarray, "N 2"]]:
    """Say how far each hand is up (0 at rest, 1 in the stroke) and how far through its stroke."""
    time = (frame[:, None] - timing.delay[clip]).astype(np.float64)
    rise, start, end, down = (timing.marks[clip, mark, None] for mark in range(4))
    raised = smoothstep((time - rise) / (start - rise))
    raised = raised * smoothstep((down - time) / (down - end))
    phase = np.clip((time - start) / (end - start), 0.0, 1.0)
    warp = timing.warp[clip, None] / (2 * np.pi)
    return raised, phase - warp * np.sin(2 * np.pi * phase)


def strokes(timing: Timing, both_move: Bool[np.ndarray, " B"]) -> Int64[np.ndarray, "B 2"]:
    """First frame and one past the last frame in which a moving hand is in its stroke."""
    starts = timing.delay + timing.marks[:, 1:2]
    ends = timing.delay + timing.marks[:, 2:3]
    first = np.where(both_move, starts.min(axis=1), starts[:, 0])
    last = np.where(both_move, ends.max(axis=1), ends[:, 0])
    return np.stack([np.ceil(first), np.floor(last) + 1], axis=-1).astype(np.int64)
