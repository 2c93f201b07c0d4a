"""Lose frames, landmarks and hands at random, as detectors do."""

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt64
from torch import Tensor

from slrctl.core import skeleton
from slrctl.core.seeding import counter_events, keys_for
from slrctl.settings import AugmentSettings

IS_HAND = np.zeros((2, skeleton.NUM_LANDMARKS), dtype=bool)
IS_HAND[0, skeleton.LEFT_HAND] = True
IS_HAND[1, skeleton.RIGHT_HAND] = True


def _lose(
    is_present: Bool[Tensor, "B T V"], is_lost: Bool[np.ndarray, "#B #T #V"]
) -> Bool[Tensor, "B T V"]:
    """What is left of the landmarks; all of them in a clip that would keep none."""
    kept = is_present & ~torch.from_numpy(is_lost)
    is_spared = ~kept.any(dim=2).any(dim=1)
    return torch.where(is_spared[:, None, None], is_present, kept)


def drop_landmarks(
    landmarks: Float[Tensor, "B T 54 2"],
    keys: UInt64[np.ndarray, " B"],
    settings: AugmentSettings,
) -> Float[Tensor, "B T 54 2"]:
    """Lose whole frames, single landmarks, and one hand of a clip, each with its own probability.

    A frame that lost everything is still a frame. Draws are numbered by frame and landmark, so the
    length a clip is padded to does not change them.
    """
    if not (settings.frame_dropout or settings.joint_dropout or settings.hand_dropout):
        return landmarks
    shape = landmarks.shape[:3]
    is_present = ~landmarks.isnan().any(dim=-1)
    if settings.frame_dropout > 0:
        is_lost = counter_events(keys_for(keys, "frames"), shape[1], settings.frame_dropout)
        is_present = _lose(is_present, is_lost[:, :, None])
    if settings.joint_dropout > 0:
        count = shape[1] * shape[2]
        is_lost = counter_events(keys_for(keys, "joints"), count, settings.joint_dropout)
        is_present = _lose(is_present, is_lost.reshape(shape))
    if settings.hand_dropout > 0:
        is_lost = counter_events(keys_for(keys, "hands"), 1, settings.hand_dropout)
        side = counter_events(keys_for(keys, "hand sides"), 1, 0.5)[:, 0].astype(np.int64)
        is_present = _lose(is_present, (is_lost & IS_HAND[side])[:, None])
    return landmarks.masked_fill(~is_present[..., None], torch.nan)
