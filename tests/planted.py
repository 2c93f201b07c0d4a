"""Clips to audit, and changes to a clip before it is copied into another split."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np

from slrctl.core import skeleton
from slrctl.core.clip import Clip

Landmarks = np.ndarray
Change = Callable[[Landmarks, np.random.Generator], Landmarks]


def wandering(
    seed: int, *, clip_id: str = "clip", gloss: str = "a", frames: int = 12, **facts: Any
) -> Clip:
    """A body that stands and hands that wander smoothly."""
    rng = np.random.default_rng(seed)
    landmarks = np.tile(np.random.default_rng(0).random((54, 2)), (frames, 1, 1))
    landmarks[:, [6, 7]] = [[0.35, 0.5], [0.65, 0.5]]
    landmarks[:, 1] = [0.5, 0.5]
    landmarks[:, [0, 2, 3, 4, 5]] = [
        [0.5, 0.3],
        [0.47, 0.28],
        [0.53, 0.28],
        [0.45, 0.3],
        [0.55, 0.3],
    ]
    steps = rng.standard_normal((3, frames, 1, 2)).cumsum(1).cumsum(1) * 0.004
    streams = ([8, 9, 10, 11], skeleton.LEFT_HAND, skeleton.RIGHT_HAND)
    for stream, path in zip(streams, steps, strict=True):
        landmarks[:, stream] += path
    return Clip(clip_id, gloss, landmarks.astype(np.float32), **facts)


def resampled(clip: Landmarks, factor: float, start: float = 0, end: float = 1) -> Landmarks:
    """Linear interpolation at even times."""
    last = len(clip) - 1
    times = np.linspace(start * last, end * last, round(factor * len(clip)))
    low = np.floor(times).astype(int)
    high = np.minimum(low + 1, last)
    share = (times - low)[:, None, None]
    between = (1 - share) * clip[low] + share * clip[high]
    return np.where(share == 0, clip[low], between)  # a missing neighbour takes nothing away


def picked(clip: Landmarks, factor: float) -> Landmarks:
    """The nearest frames at even times."""
    return clip[np.rint(np.linspace(0, len(clip) - 1, round(factor * len(clip)))).astype(int)]


def jittered(clip: Landmarks, sigma: float, rng: np.random.Generator) -> Landmarks:
    """Noise in shoulder distances."""
    gap = clip[:, skeleton.LEFT_SHOULDER] - clip[:, skeleton.RIGHT_SHOULDER]
    unit = np.nanmedian(np.linalg.norm(gap, axis=-1))
    return clip + sigma * unit * rng.standard_normal(clip.shape)


def mirrored(clip: Landmarks) -> Landmarks:
    swapped = clip[:, skeleton.MIRROR].copy()
    swapped[..., 0] = 1 - swapped[..., 0]
    return swapped


def turned(clip: Landmarks, degrees: float) -> Landmarks:
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return (clip - 0.5) @ turn + 0.5


def thinned(clip: Landmarks, share: float, rng: np.random.Generator) -> Landmarks:
    """Without some frames, wherever they are."""
    kept = rng.permutation(len(clip))[: round((1 - share) * len(clip))]
    return clip[np.sort(kept)]


def trimmed(clip: Landmarks, start: float, end: float) -> Landmarks:
    return clip[round(start * len(clip)) : round((1 - end) * len(clip))]


CHANGES: dict[str, Change] = {
    "exact": lambda clip, _: clip,
    "rounded": lambda clip, _: np.round(clip, 3),
    "float16": lambda clip, _: clip.astype(np.float16),
    "shifted": lambda clip, _: clip + np.array([0.1, -0.07]),
    "shifted out of the image": lambda clip, _: clip + np.array([1.4, 0.6]),
    "scaled": lambda clip, _: clip * 1.3 - 0.1,
    "scaled to a third": lambda clip, _: clip * 0.33,
    "aspect": lambda clip, _: clip * [1.33, 1.0],
    "turned": lambda clip, _: turned(clip, 8),
    "turned by 20": lambda clip, _: turned(clip, 20),
    "faster": lambda clip, _: resampled(clip, 0.7),
    "twice as fast": lambda clip, _: resampled(clip, 0.5),
    "faster by picking": lambda clip, _: picked(clip, 0.7),
    "slower": lambda clip, _: resampled(clip, 1.4),
    "twice as slow": lambda clip, _: resampled(clip, 2.0),
    "slower by repeating": lambda clip, _: picked(clip, 1.4),
    "every other frame": lambda clip, _: clip[::2],
    "frames lost": lambda clip, rng: thinned(clip, 0.15, rng),
    "start cut": lambda clip, _: trimmed(clip, 0.1, 0),
    "end cut by 0.15": lambda clip, _: trimmed(clip, 0, 0.15),
    "ends cut": lambda clip, _: trimmed(clip, 0.08, 0.08),
    "barely jittered": lambda clip, rng: jittered(clip, 0.002, rng),
    "jittered": lambda clip, rng: jittered(clip, 0.01, rng),
    "jittered by 0.02": lambda clip, rng: jittered(clip, 0.02, rng),
    "mirrored": lambda clip, _: mirrored(clip),
    "mirrored and slower": lambda clip, _: resampled(mirrored(clip) * 0.8, 1.3),
    "mirrored and jittered": lambda clip, rng: jittered(mirrored(clip), 0.01, rng),
    "several at once": lambda clip, rng: jittered(
        resampled(cast(Landmarks, clip * 1.1 + 0.05), 0.8, 0.04), 0.005, rng
    ),
}
