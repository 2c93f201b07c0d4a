"""Preparation of clips: the canonical form, and normalisation of body and hands in their boxes.

The body's box hangs on the neck and is measured in shoulder distances, an idea of SPOTER (Bohacek
and Hruz, WACV Workshops 2022); a hand's box is the square around its landmarks. Coordinates count
from the centre of their box in units of its side: the box spans -0.5 to 0.5. Nothing is clamped.
"""

from collections.abc import Iterable, Iterator
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


def _body_box(
    body: Float[Tensor, "B T 12 2"],
) -> tuple[Float[Tensor, "B T 2"], Float[Tensor, "B T"]]:
    """Return centre and side of the body's box in every frame; NaN in a clip without a good one."""
    nose, neck = body[:, :, skeleton.NOSE], body[:, :, skeleton.NECK]
    shoulders = _distance(body[:, :, skeleton.RIGHT_SHOULDER], body[:, :, skeleton.LEFT_SHOULDER])
    head = _distance(neck, nose)
    ratio = _median(torch.where(head > 0, shoulders / head, torch.nan))
    # A signer turned sideways, or a lost shoulder: the head's height tells the size instead.
    is_frontal = shoulders >= _median(shoulders) / 2
    unit = torch.where(is_frontal, shoulders, head * ratio)
    is_good = ~neck[..., 0].isnan() & (unit > 0) & unit.isfinite()

    eyes = body[:, :, [skeleton.RIGHT_EYE, skeleton.LEFT_EYE], 1].nanmean(dim=-1)
    eyes = torch.where(eyes.isnan(), nose[..., 1], eyes)
    eyes = torch.where(eyes.isnan(), neck[..., 1] - NECK_TO_EYES * unit, eyes)
    center_y = eyes + (BODY_SIDE / 2 - ABOVE_EYES) * unit
    side = torch.where(is_good.any(dim=1, keepdim=True), BODY_SIDE * unit, torch.nan)

    source = _last_good(is_good)
    center = torch.stack([neck[..., 0].gather(1, source), center_y.gather(1, source)], dim=-1)
    return center, side.gather(1, source)


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


def normalise(
    landmarks: Float[Tensor, "B T 54 2"], settings: PrepareSettings
) -> Float[Tensor, "B T 54 2"]:
    """Express body and hands in their boxes.

    A frame without a usable body box of its own takes the last good one, the frames before the
    first good one take that; a clip without any loses its body. A hand of which all landmarks
    coincide takes the side of its last good box in the same way. The result does not change when a
    clip is shifted or uniformly scaled, and mirrors with it; frames of padding change no bit.

    Args:
        landmarks: x and y in one scale per clip, NaN where missing and on padding. A landmark with
            only one known coordinate counts as missing.
        settings: size of a hand's box.

    Returns:
        Coordinates from the centre of their box, in units of its side; NaN where missing. A hand's
        values stay within +-0.5 / settings.hand_box.
    """
    # x + y - (x + y) is 0 where both are known, else NaN: the cheapest way to lose half a landmark.
    total = landmarks[..., 0] + landmarks[..., 1]
    landmarks = landmarks + (total - total)[..., None]
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


def canonical_settings(settings: PrepareSettings | None) -> dict[str, Any]:
    """Return what decides the canonical form, for JSON; empty for the cleaned clip itself."""
    settings = settings or PrepareSettings()
    options: dict[str, Any] = {}
    if settings.rectify:
        options["rectify_alpha"] = settings.rectify_alpha
    if settings.edge_hands != "keep":
        options["edge_hands"] = settings.edge_hands
    if settings.dominant_hand != "as_signed":
        options["dominant_hand"] = settings.dominant_hand
    return options


def canonical_clips(clips: Iterable[Clip], settings: PrepareSettings | None) -> Iterator[Clip]:
    """Yield cleaned clips in their canonical form, as trainings and evaluations take them."""
    settings = settings or PrepareSettings()
    if settings.rectify:
        clips = rectify_clips(clips, settings)
    if settings.edge_hands == "drop":
        clips = map(drop_edge_hands, clips)
    if settings.dominant_hand == "right":
        clips = map(lead_with_right, clips)
    yield from clips


def prepare_clip(
    landmarks: Float[np.ndarray, "T 54 2"], settings: PrepareSettings, *, aspect: float = 1.0
) -> Float32[np.ndarray, "T 54 2"]:
    """Prepare one clip as training does: bring it into its canonical form, then `normalise` it.

    Args:
        landmarks: cleaned coordinates in the image, NaN where missing.
        settings: those the model was trained with.
        aspect: width of the image over its height, for angles and the activity of hands.
    """
    clip = Clip("", "", landmarks.astype(np.float32), aspect=aspect)
    (canonical,) = canonical_clips([clip], settings)
    return normalise(torch.from_numpy(canonical.landmarks)[None], settings)[0].numpy()
