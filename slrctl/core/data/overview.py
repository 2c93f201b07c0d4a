"""A set of clips in numbers: people, lengths, balance, missing landmarks."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from slrctl.core import skeleton
from slrctl.core.clip import Clip
from slrctl.core.data.dataset import ordered_classes
from slrctl.core.data.mirror import hand_activity

_STREAMS = {
    "body": skeleton.BODY,
    "left_hand": skeleton.LEFT_HAND,
    "right_hand": skeleton.RIGHT_HAND,
}


class Group(NamedTuple):
    """The clips that have a gloss, a signer, a session or a split in common."""

    name: str | None
    """None for the clips of which it is not known."""
    clips: int
    glosses: int
    signers: int
    sessions: int
    left_dominant: float
    """Share of the clips whose left hand is the more active one."""


class Coordinates(NamedTuple):
    """Ranges of the coordinates of the landmarks, in widths and heights of the image."""

    y_axis: str | None
    """Down or up; None where no frame shows both nose and shoulders."""
    x: dict[str, float]
    """Minimum, 1st and 99th percentile, maximum."""
    y: dict[str, float]
    outside_image: float
    """Share of the present landmarks that lie beyond an edge of the image."""


class Overview(NamedTuple):
    """A set of clips in numbers; shares are from 0 to 1, lengths in frames."""

    clips: int
    frames: int
    glosses: tuple[Group, ...]
    signers: tuple[Group, ...]
    sessions: tuple[Group, ...]
    splits: tuple[Group, ...]
    balance: dict[str, float]
    """Clips a gloss; `imbalance` is those of the commonest over those of the rarest."""
    length: dict[str, float]
    fps: dict[str, float] | None
    clips_without_fps: int
    aspects: dict[float, int]
    """Clips for each width / height of the image, commonest first."""
    missing: dict[str, float]
    """For each stream the share of its landmarks, over all frames, that were not detected."""
    missing_landmarks: dict[str, float]
    hands: dict[str, float]
    """Shares of all frames by which hands were detected."""
    coordinates: Coordinates
    dominant_hand: dict[str, int]
    """Clips by their more active hand."""


def describe_clips(clips: Sequence[Clip]) -> Overview:
    """Count and measure; nothing is changed.

    Args:
        clips: at least one, not prepared: coordinates of the image.
    """
    activity = np.array([hand_activity(clip.landmarks, clip.aspect) for clip in clips])
    leads_left, leads_right = activity[:, 0] > activity[:, 1], activity[:, 1] > activity[:, 0]
    frames = np.concatenate([clip.landmarks for clip in clips])
    is_missing = np.asarray(np.isnan(frames).any(-1))
    missing = is_missing.mean(axis=0)
    fps = np.array([clip.fps for clip in clips if clip.fps is not None])
    aspects = Counter(round(clip.aspect, 4) for clip in clips)
    counts = list(Counter(clip.gloss for clip in clips).values())
    return Overview(
        clips=len(clips),
        frames=len(frames),
        glosses=_groups(clips, leads_left, "gloss"),
        signers=_groups(clips, leads_left, "signer"),
        sessions=_groups(clips, leads_left, "session"),
        splits=_groups(clips, leads_left, "split"),
        balance={
            "minimum": min(counts),
            "median": float(np.median(counts)),
            "maximum": max(counts),
            "imbalance": max(counts) / min(counts),
        },
        length=_spread(np.array([clip.num_frames for clip in clips])),
        fps=_spread(fps) if len(fps) else None,
        clips_without_fps=len(clips) - len(fps),
        aspects=dict(sorted(aspects.items(), key=lambda pair: (-pair[1], pair[0]))),
        missing={name: float(missing[stream].mean()) for name, stream in _STREAMS.items()},
        missing_landmarks=dict(zip(skeleton.LANDMARK_NAMES, missing.tolist(), strict=True)),
        hands=_hand_shares(is_missing),
        coordinates=_coordinates(frames, is_missing),
        dominant_hand={
            "left": int(leads_left.sum()),
            "right": int(leads_right.sum()),
            "neither": int((~leads_left & ~leads_right).sum()),
        },
    )


def _groups(
    clips: Sequence[Clip], leads_left: Bool[np.ndarray, " N"], attribute: str
) -> tuple[Group, ...]:
    """Return groups in the order of their names, clips without one last."""
    members: dict[str | None, list[int]] = defaultdict(list)
    for index, clip in enumerate(clips):
        members[getattr(clip, attribute)].append(index)
    names: list[str | None] = list(ordered_classes(name for name in members if name is not None))
    groups = []
    for name in (*names, *([None] if None in members else [])):
        chosen = [clips[index] for index in members[name]]
        groups.append(
            Group(
                name=name,
                clips=len(chosen),
                glosses=len({clip.gloss for clip in chosen}),
                signers=len({clip.signer for clip in chosen} - {None}),
                sessions=len({clip.session for clip in chosen} - {None}),
                left_dominant=float(leads_left[members[name]].mean()),
            )
        )
    return tuple(groups)


def _spread(values: Float[np.ndarray, " N"] | Int64[np.ndarray, " N"]) -> dict[str, float]:
    return {
        "minimum": float(values.min()),
        "median": float(np.median(values)),
        "mean": float(values.mean()),
        "maximum": float(values.max()),
    }


def _hand_shares(is_missing: Bool[np.ndarray, "F 54"]) -> dict[str, float]:
    left, right = (
        np.logical_not(is_missing[:, hand].all(axis=1))
        for hand in (skeleton.LEFT_HAND, skeleton.RIGHT_HAND)
    )
    return {
        "both": float((left & right).mean()),
        "left_only": float((left & ~right).mean()),
        "right_only": float((right & ~left).mean()),
        "neither": float((~left & ~right).mean()),
    }


def _coordinates(
    frames: Float32[np.ndarray, "F 54 2"], is_missing: Bool[np.ndarray, "F 54"]
) -> Coordinates:
    points = frames[~is_missing]
    names: tuple[str, ...] = ("minimum", "percentile_1", "percentile_99", "maximum")
    quantiles = np.quantile(points, [0, 0.01, 0.99, 1], axis=0)
    x, y = (dict[str, float](zip(names, axis, strict=True)) for axis in quantiles.T.tolist())
    heights = frames[:, [skeleton.NOSE, skeleton.RIGHT_SHOULDER, skeleton.LEFT_SHOULDER], 1]
    y_axis = None
    if not np.isnan(heights[:, 0]).all() and not np.isnan(heights[:, 1:]).all():
        is_up = np.nanmedian(heights[:, 0]) > np.nanmedian(heights[:, 1:])
        y_axis = "up" if is_up else "down"
    is_outside = np.asarray(((points < 0) | (points > 1)).any(axis=1))
    return Coordinates(y_axis, x, y, outside_image=float(is_outside.mean()))
