"""Preparation of clips: the canonical form, frames, and body and hands in their boxes.

The body's box hangs on the neck and is measured in shoulder distances, an idea of SPOTER (Bohacek
and Hruz, WACV Workshops 2022); a hand's box is the square around its landmarks. Coordinates count
from the centre of their box in units of its side: the box spans -0.5 to 0.5. Nothing is clamped.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from slrctl.core import skeleton
from slrctl.core.clip import Clip
from slrctl.core.data.mirror import drop_edge_hands, lead_with_right
from slrctl.core.data.rectify import rectify_clips
from slrctl.settings import PrepareSettings

# The body's box, in shoulder distances.
BODY_SIDE = 6.0
ABOVE_EYES = 0.5
NECK_TO_EYES = 1.3


def _distance(a: Float[Tensor, "B T 2"], b: Float[Tensor, "B T 2"]) -> Float[Tensor, "B T"]:
    # Plain products and one root: vector and scalar code round them alike, whatever the padding.
    gap = a - b
    return (gap[..., 0] * gap[..., 0] + gap[..., 1] * gap[..., 1]).sqrt()


def _median(values: Float[Tensor, "B T"]) -> Float[Tensor, "B 1"]:
    """Return the median of each row's known values; NaN where it has none."""
    ordered = values.sort(dim=1).values  # NaN comes last
    known = (~values.isnan()).sum(dim=1, keepdim=True)
    lower = ordered.gather(1, (known - 1).clamp(min=0) // 2)
    return (lower + ordered.gather(1, known // 2)) / 2


def _last_good(is_good: Bool[Tensor, "B T *hands"]) -> Int64[Tensor, "B T *hands"]:
    """Return the last good frame up to each frame; before the first good one, that one."""
    steps = torch.arange(is_good.shape[1]).view(-1, *[1] * (is_good.ndim - 2))
    latest = torch.where(is_good, steps, -1).cummax(dim=1).values
    first = is_good.int().argmax(dim=1, keepdim=True)
    return torch.where(latest < 0, first, latest)


def _shoulder_unit(body: Float[Tensor, "B T 12 2"]) -> Float[Tensor, "B T"]:
    """Return the distance of the shoulders in every frame; NaN where nothing tells it.

    Of a signer turned sideways, or with a lost shoulder, the head's height tells it instead.
    """
    nose, neck = body[:, :, skeleton.NOSE], body[:, :, skeleton.NECK]
    shoulders = _distance(body[:, :, skeleton.RIGHT_SHOULDER], body[:, :, skeleton.LEFT_SHOULDER])
    head = _distance(neck, nose)
    ratio = _median(torch.where(head > 0, shoulders / head, torch.nan))
    is_frontal = shoulders >= _median(shoulders) / 2
    unit = torch.where(is_frontal, shoulders, head * ratio)
    return torch.where((unit > 0) & unit.isfinite(), unit, torch.nan)


def _body_box(
    body: Float[Tensor, "B T 12 2"],
) -> tuple[Float[Tensor, "B T 2"], Float[Tensor, "B T"]]:
    """Return centre and side of the body's box in every frame; NaN in a clip without a good one."""
    nose, neck = body[:, :, skeleton.NOSE], body[:, :, skeleton.NECK]
    unit = _shoulder_unit(body)
    is_good = ~neck[..., 0].isnan() & ~unit.isnan()

    eyes = body[:, :, [skeleton.RIGHT_EYE, skeleton.LEFT_EYE], 1].nanmean(dim=-1)
    eyes = torch.where(eyes.isnan(), nose[..., 1], eyes)
    eyes = torch.where(eyes.isnan(), neck[..., 1] - NECK_TO_EYES * unit, eyes)
    center_y = eyes + (BODY_SIDE / 2 - ABOVE_EYES) * unit
    side = torch.where(is_good.any(dim=1, keepdim=True), BODY_SIDE * unit, torch.nan)

    source = _last_good(is_good)
    center = torch.stack([neck[..., 0].gather(1, source), center_y.gather(1, source)], dim=-1)
    return center, side.gather(1, source)


def place(landmarks: Float[Tensor, "B T 54 2"]) -> Float[Tensor, "B T 54 2"]:
    """Measure all landmarks of a clip from its usual neck, in its usual shoulder distance.

    Both are medians over the clip, so the signer's movements stay, and the jitter of single frames
    does not move the hands. The result does not change when the clip is shifted or uniformly
    scaled, and mirrors with it; a clip without neck or shoulders is all missing.
    """
    body = landmarks[:, :, skeleton.BODY]
    neck = torch.stack([_median(axis) for axis in body[:, :, skeleton.NECK].unbind(-1)], dim=-1)
    return (landmarks - neck[:, :, None]) / usual_shoulders(landmarks)[..., None, None]


def usual_shoulders(landmarks: Float[Tensor, "B T 54 2"]) -> Float[Tensor, "B 1"]:
    """Return the median distance of the shoulders in each clip; NaN where nothing tells it."""
    return _median(_shoulder_unit(landmarks[:, :, skeleton.BODY]))


def _hand_boxes(
    hands: Float[Tensor, "B T 2 21 2"], hand_box: float
) -> tuple[Float[Tensor, "B T 2 2"], Float[Tensor, "B T 2"]]:
    """Return centre and side of both hands' boxes in every frame; NaN centre without a hand."""
    by_landmark = hands.movedim(3, 0).contiguous()  # landmarks first: 4 times as fast to reduce
    low = by_landmark.nan_to_num(nan=torch.inf).amin(dim=0)
    high = by_landmark.nan_to_num(nan=-torch.inf).amax(dim=0)
    extent = (high - low).amax(dim=-1)
    is_good = (extent > 0) & extent.isfinite()
    extent = torch.where(is_good.any(dim=1, keepdim=True), extent, 1.0)
    return (low + high) / 2, hand_box * extent.gather(1, _last_good(is_good))


def lose_halves(landmarks: Float[Tensor, "B T 54 2"]) -> Float[Tensor, "B T 54 2"]:
    """Make every landmark missing of which one coordinate is."""
    # x + y - (x + y) is 0 where both are known, else NaN: the cheapest way to do it.
    total = landmarks[..., 0] + landmarks[..., 1]
    return landmarks + (total - total)[..., None]


def normalise(
    landmarks: Float[Tensor, "B T 54 2"], settings: PrepareSettings
) -> Float[Tensor, "B T 54 2"]:
    """Express body and hands in their boxes.

    A frame without a usable body box of its own takes the last good one, the frames before the
    first good one take that; a clip without any loses its body. A hand of which all landmarks
    coincide takes the side of its last good box in the same way. The result does not change when a
    clip is shifted or uniformly scaled, and mirrors with it; frames of padding change no bit.

    Args:
        landmarks: x and y, NaN where missing and on padding. A landmark with
            only one known coordinate counts as missing.
        settings: size of a hand's box.

    Returns:
        Coordinates from the centre of their box, in units of its side; NaN where missing. A hand's
        values stay within +-0.5 / settings.hand_box.
    """
    landmarks = lose_halves(landmarks)
    body = landmarks[:, :, skeleton.BODY]
    body_center, body_side = _body_box(body)
    hands = landmarks[:, :, skeleton.NUM_BODY :].unflatten(2, (2, skeleton.NUM_HAND))
    hand_center, hand_side = _hand_boxes(hands, settings.hand_box)

    in_body_box = (body - body_center[:, :, None]).div_(body_side[..., None, None])
    in_hand_box = (hands - hand_center[:, :, :, None]).div_(hand_side[..., None, None])
    return torch.cat([in_body_box, in_hand_box.flatten(2, 3)], dim=2)


def even_frames(
    lengths: Int64[np.ndarray, " B"], counts: Int64[np.ndarray, " B"]
) -> Int64[np.ndarray, "B N"]:
    """Pick `counts` evenly spaced frames of each clip, first and last included.

    N is the largest count; a shorter row repeats its last frame.
    """
    steps = np.arange(counts.max()) * ((lengths - 1) / np.maximum(counts - 1, 1))[:, None]
    return np.minimum(np.round(steps).astype(np.int64), (lengths - 1)[:, None])


def resample_frames(
    landmarks: Float[np.ndarray, "T 54 2"], num_frames: int
) -> Float[np.ndarray, "N 54 2"]:
    """Resample a clip to `num_frames` evenly spaced frames.

    Each is the nearest recorded frame, not a mix of two: missing landmarks stay missing, and no
    hand lies halfway between two unrelated detections.
    """
    picks = even_frames(np.array([len(landmarks)]), np.array([num_frames]))
    return landmarks[picks[0]]


def interpolate_frames(
    landmarks: Float[Tensor, "B T 54 2"],
    lengths: Int64[Tensor, " B"],
    positions: Float[Tensor, "B N"],
) -> Float[Tensor, "B N 54 2"]:
    """Resample each clip at positions from 0, its first frame, to 1, its last.

    A landmark is interpolated between two frames that have it; where one of them lacks it, the
    nearer frame decides.
    """
    times = positions * (lengths[:, None] - 1)
    before = times.floor().long()
    after = torch.minimum(before + 1, lengths[:, None] - 1)
    share = (times - before).to(landmarks.dtype)[:, :, None, None]
    row = torch.arange(len(landmarks))[:, None]
    earlier, later = landmarks[row, before], landmarks[row, after]
    nearer = torch.where(share < 0.5, earlier, later)
    between = earlier + share * (later - earlier)
    return torch.where(between.isnan(), nearer, between)


def even_positions(num_clips: int, num_frames: int) -> Float[Tensor, "B N"]:
    """Return evenly spaced positions, both ends included; of a single frame, the first."""
    return torch.linspace(0, 1, num_frames, dtype=torch.float64).expand(num_clips, -1)


def letterbox(clip: Clip) -> Clip:
    """Fit a clip's image into the middle of a square one, so that x and y have one scale."""
    if clip.aspect == 1:
        return clip
    scale = np.array([min(clip.aspect, 1.0), min(1 / clip.aspect, 1.0)], np.float32)
    return replace(clip, landmarks=(clip.landmarks - 0.5) * scale + 0.5, aspect=1.0)


# Frames kept beside the first and the last one that show a hand, and the fewest to cut a clip to.
_MARGIN = 1
_FEWEST_FRAMES = 8


def trim_rest(clip: Clip) -> Clip:
    """Cut off the frames before a hand is first and after one is last detected.

    One frame is left on either side; a clip that would become shorter than 8 frames stays whole.
    """
    shows_hand = ~np.isnan(clip.landmarks[:, skeleton.NUM_BODY :]).any(-1).all(-1)
    shown = np.flatnonzero(shows_hand)
    if not len(shown):
        return clip
    first, end = max(shown[0] - _MARGIN, 0), min(shown[-1] + 1 + _MARGIN, clip.num_frames)
    if end - first < min(_FEWEST_FRAMES, clip.num_frames):
        return clip
    return replace(clip, landmarks=clip.landmarks[first:end])


def fill_gaps(
    landmarks: Float[np.ndarray, "T 54 2"], longest: int
) -> Float32[np.ndarray, "T 54 2"]:
    """Interpolate landmarks that are missing in at most `longest` frames in a row.

    Gaps at either end of the clip stay, and so do longer ones.
    """
    is_known = ~np.isnan(landmarks).any(-1)
    frames = np.arange(len(landmarks))[:, None]
    before = np.maximum.accumulate(np.where(is_known, frames, -1), axis=0)
    after = np.minimum.accumulate(np.where(is_known, frames, len(frames))[::-1], axis=0)[::-1]
    is_filled = ~is_known & (before >= 0) & (after < len(frames)) & (after - before <= longest + 1)
    frame, landmark = np.nonzero(is_filled)
    first, last = before[is_filled], after[is_filled]
    share = ((frame - first) / (last - first)).astype(np.float32)[:, None]
    filled = landmarks.copy()
    start, end = landmarks[first, landmark], landmarks[last, landmark]
    filled[frame, landmark] = start + share * (end - start)
    return filled


def canonical_settings(settings: PrepareSettings | None) -> dict[str, Any]:
    """Return what decides the canonical form, for JSON; empty for the cleaned clip itself."""
    settings = settings or RAW
    deciding = settings.model_dump(exclude={"hand_box", "num_frames"})
    if not settings.rectify:
        del deciding["rectify_alpha"]
    neutral = RAW.model_dump()
    return {name: value for name, value in deciding.items() if value != neutral[name]}


RAW = PrepareSettings(letterbox=False, trim_rest=False, fill_gaps=0)
"""Preparation under which the canonical form is the cleaned clip."""


def canonical_clips(clips: Iterable[Clip], settings: PrepareSettings | None) -> Iterator[Clip]:
    """Yield cleaned clips in their canonical form, as trainings and evaluations take them."""
    settings = settings or RAW
    for clip in _frame_by_frame(clips, settings):
        if settings.trim_rest:
            clip = trim_rest(clip)
        if settings.fill_gaps:
            clip = replace(clip, landmarks=fill_gaps(clip.landmarks, settings.fill_gaps))
        yield clip


def _frame_by_frame(clips: Iterable[Clip], settings: PrepareSettings) -> Iterator[Clip]:
    """Apply what neither adds, moves nor removes a frame."""
    if settings.rectify:
        clips = rectify_clips(clips, settings)
    if settings.edge_hands == "drop":
        clips = map(drop_edge_hands, clips)
    if settings.dominant_hand == "right":
        clips = map(lead_with_right, clips)
    if settings.letterbox:
        clips = map(letterbox, clips)
    yield from clips


def prepare_clip(
    landmarks: Float[np.ndarray, "T 54 2"], settings: PrepareSettings, *, aspect: float = 1.0
) -> Float32[np.ndarray, "T 54 2"]:
    """Prepare the frames of one clip: all of `settings` that concerns a frame, then `normalise`.

    Frames are neither trimmed, filled nor resampled.

    Args:
        landmarks: cleaned coordinates in the image, NaN where missing.
        settings: those the model was trained with.
        aspect: width of the image over its height, for angles and the activity of hands.
    """
    clip = Clip("", "", landmarks.astype(np.float32), aspect=aspect)
    (canonical,) = _frame_by_frame([clip], settings)
    return normalise(torch.from_numpy(canonical.landmarks)[None], settings)[0].numpy()
