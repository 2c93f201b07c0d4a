"""What a set of clips holds, in numbers: people, lengths, balance, and what was not detected."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int64

from slrctl.core import skeleton
from slrctl.core.clip import Clip
from slrctl.core.data.dataset import ordered_classes
from slrctl.core.data.mirror import hand_activity

PARTS = {
    "body": skeleton.BODY,
    "left_hand": skeleton.LEFT_HAND,
    "right_hand": skeleton.RIGHT_HAND,
}
_SHOULDERS = [skeleton.RIGHT_SHOULDER, skeleton.LEFT_SHOULDER]


class Group(NamedTuple):
    """The clips that have a gloss, a signer, a session or a split in common."""

    name: str | None
    """None: those of which it is not known."""
    clips: int
    glosses: int
    signers: int
    sessions: int
    left_dominant: float
    """Share of the clips whose left hand is the more active one."""


class Spread(NamedTuple):
    minimum: float
    median: float
    mean: float
    maximum: float


class Balance(NamedTuple):
    """Clips a gloss; `imbalance` is those of the commonest over those of the rarest."""

    minimum: int
    median: float
    maximum: int
    imbalance: float


class HandShares(NamedTuple):
    """Shares of all frames by which hands were detected."""

    both: float
    left_only: float
    right_only: float
    neither: float


class Axis(NamedTuple):
    """How far coordinates reach, over the image: almost all of them, and every one."""

    minimum: float
    percentile_1: float
    percentile_99: float
    maximum: float


class Coordinates(NamedTuple):
    """`y_axis` is down or up, None where no frame shows both nose and shoulders.

    `outside_image` is the share of the present landmarks that lie beyond an edge of the image.
    """

    y_axis: str | None
    x: Axis
    y: Axis
    outside_image: float


class DominantHand(NamedTuple):
    """Clips by their more active hand."""

    left: int
    right: int
    neither: int


class Overview(NamedTuple):
    """A set of clips in numbers; shares are from 0 to 1, lengths in frames."""

    clips: int
    frames: int
    glosses: tuple[Group, ...]
    signers: tuple[Group, ...]
    sessions: tuple[Group, ...]
    splits: tuple[Group, ...]
    balance: Balance
    length: Spread
    fps: Spread | None
    clips_without_fps: int
    aspects: dict[float, int]
    """Clips for each width / height of the image, commonest first."""
    missing: dict[str, float]
    """For each part the share of its landmarks, over all frames, that were not detected."""
    missing_landmarks: dict[str, float]
    hands: HandShares
    coordinates: Coordinates
    dominant_hand: DominantHand


def describe_clips(clips: Sequence[Clip]) -> Overview:
    """Count and measure; nothing is changed.

    Args:
        clips: at least one, not prepared: coordinates of the image.
    """
    activity = np.array([hand_activity(clip.landmarks, clip.aspect) for clip in clips])
    leads_left = activity[:, 0] > activity[:, 1]
    lengths = np.array([clip.num_frames for clip in clips])
    frames = np.concatenate([clip.landmarks for clip in clips])
    is_missing = np.asarray(np.isnan(frames).any(-1))
    missing = is_missing.mean(axis=0)
    rates = np.array([clip.fps for clip in clips if clip.fps is not None])
    glosses = _groups(clips, leads_left, lambda clip: clip.gloss)
    return Overview(
        clips=len(clips),
        frames=len(frames),
        glosses=glosses,
        signers=_groups(clips, leads_left, lambda clip: clip.signer),
        sessions=_groups(clips, leads_left, lambda clip: clip.session),
        splits=_groups(clips, leads_left, lambda clip: clip.split),
        balance=_balance([gloss.clips for gloss in glosses]),
        length=_spread(lengths),
        fps=_spread(rates) if len(rates) else None,
        clips_without_fps=len(clips) - len(rates),
        aspects=_aspects(clips),
        missing={name: float(missing[part].mean()) for name, part in PARTS.items()},
        missing_landmarks=dict(zip(skeleton.LANDMARK_NAMES, missing.tolist(), strict=True)),
        hands=_hand_shares(is_missing),
        coordinates=_coordinates(frames[~is_missing], _y_axis(frames)),
        dominant_hand=DominantHand(
            left=int(leads_left.sum()),
            right=int((activity[:, 1] > activity[:, 0]).sum()),
            neither=int((activity[:, 0] == activity[:, 1]).sum()),
        ),
    )


def _groups(
    clips: Sequence[Clip],
    leads_left: np.ndarray,
    name_of: Callable[[Clip], str | None],
) -> tuple[Group, ...]:
    """Groups in the order of their names, clips without one last."""
    members: dict[str | None, list[int]] = {}
    for index, clip in enumerate(clips):
        members.setdefault(name_of(clip), []).append(index)
    names: list[str | None] = list(ordered_classes(name for name in members if name is not None))
    return tuple(
        Group(
            name=name,
            clips=len(members[name]),
            glosses=len({clips[index].gloss for index in members[name]}),
            signers=len({clips[index].signer for index in members[name]} - {None}),
            sessions=len({clips[index].session for index in members[name]} - {None}),
            left_dominant=float(leads_left[members[name]].mean()),
        )
        for name in (*names, *([None] if None in members else []))
    )


def _spread(values: Float[np.ndarray, " N"] | Int64[np.ndarray, " N"]) -> Spread:
    return Spread(
        float(values.min()), float(np.median(values)), float(values.mean()), float(values.max())
    )


def _balance(counts: Sequence[int]) -> Balance:
    return Balance(
        min(counts), float(np.median(counts)), max(counts), imbalance=max(counts) / min(counts)
    )


def _aspects(clips: Sequence[Clip]) -> dict[float, int]:
    rounded = [round(clip.aspect, 4) for clip in clips]
    return dict(
        sorted(((a, rounded.count(a)) for a in set(rounded)), key=lambda pair: (-pair[1], pair[0]))
    )


def _hand_shares(is_missing: np.ndarray) -> HandShares:
    left, right = (
        np.logical_not(is_missing[:, hand].all(axis=1))
        for hand in (skeleton.LEFT_HAND, skeleton.RIGHT_HAND)
    )
    return HandShares(
        both=float((left & right).mean()),
        left_only=float((left & ~right).mean()),
        right_only=float((right & ~left).mean()),
        neither=float((~left & ~right).mean()),
    )


def _y_axis(frames: Float32[np.ndarray, "F 54 2"]) -> str | None:
    """Which way y points, from the median nose and the median shoulder of the whole set."""
    noses, shoulders = frames[:, skeleton.NOSE, 1], frames[:, _SHOULDERS, 1]
    noses, shoulders = noses[~np.isnan(noses)], shoulders[~np.isnan(shoulders)]
    if not len(noses) or not len(shoulders):
        return None
    return "up" if np.median(noses) > np.median(shoulders) else "down"


def _coordinates(points: Float32[np.ndarray, "N 2"], y_axis: str | None) -> Coordinates:
    low, percentile_1, percentile_99, high = np.quantile(points, [0, 0.01, 0.99, 1], axis=0)
    x, y = (
        Axis(*(float(values[axis]) for values in (low, percentile_1, percentile_99, high)))
        for axis in (0, 1)
    )
    is_outside = np.asarray(((points < 0) | (points > 1)).any(axis=1))
    return Coordinates(y_axis, x, y, outside_image=float(is_outside.mean()))


def missing_hand_share(clips: Sequence[Clip]) -> tuple[float, float]:
    """Share of frames without the left hand, and without the right one."""
    missing = np.zeros(2)
    num_frames = 0
    for clip in clips:
        num_frames += clip.num_frames
        is_missing = np.isnan(clip.landmarks[..., 0]) | np.isnan(clip.landmarks[..., 1])
        missing += [
            is_missing[:, hand].all(axis=1).sum()
            for hand in (skeleton.LEFT_HAND, skeleton.RIGHT_HAND)
        ]
    left, right = missing / num_frames
    return float(left), float(right)
