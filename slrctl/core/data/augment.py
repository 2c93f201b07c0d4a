"""Vary training clips: where the camera stood, how fast was signed, what the detector lost.

Hands and body move together, on the cleaned coordinates, before normalisation; only the noise comes
after it. Every draw belongs to a clip's key and a purpose (`slrctl.core.seeding`), and all
arithmetic on landmarks is elementwise, so a clip is varied alike to the bit whatever the clips
beside it, its place in the batch and the length it is padded to.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt64
from torch import Tensor

from slrctl.core import skeleton
from slrctl.core.data import warp
from slrctl.core.data.dropout import drop_landmarks
from slrctl.core.data.prepare import even_frames
from slrctl.core.seeding import counter_events, counter_normal, counter_uniform, keys_for
from slrctl.settings import AugmentSettings

# The four geometric augmentations, in the order their numbers are drawn.
ROTATION, SHEAR, SQUEEZE, ARMS = range(4)


def change_speed(
    landmarks: Float[Tensor, "B T 54 2"],
    is_valid: Bool[Tensor, "B T"],
    keys: UInt64[np.ndarray, " B"],
    speed: float,
    max_frames: int,
) -> tuple[Float[Tensor, "B N 54 2"], Bool[Tensor, "B N"]]:
    """Show each clip in between 1/speed and speed times its frames, at most `max_frames`.

    The factor is uniform in its logarithm: slower is as likely as faster. Frames are picked, not
    mixed, as in `resample_frames`.
    """
    lengths = is_valid.sum(dim=1).numpy()
    draws = counter_uniform(keys_for(keys, "speed"), 1)[:, 0]
    counts = np.rint(lengths * speed ** (2 * draws - 1)).astype(np.int64).clip(1, max_frames)
    picks = torch.from_numpy(even_frames(lengths, counts))
    is_valid = torch.from_numpy(np.arange(counts.max()) < counts[:, None])
    picked = landmarks[torch.arange(len(landmarks))[:, None], picks]
    return picked.masked_fill(~is_valid[:, :, None, None], torch.nan), is_valid


def mirror(landmarks: Float[Tensor, "B T 54 2"]) -> Float[Tensor, "B T 54 2"]:
    """Show the clips in a mirror: x becomes 1 - x, the signer's left and right swap."""
    x, y = landmarks[:, :, torch.from_numpy(skeleton.MIRROR)].unbind(dim=-1)
    return torch.stack([1 - x, y], dim=-1)


def move_image(
    landmarks: Float[Tensor, "B T 54 2"],
    aspect: Float[np.ndarray, " B"],
    keys: UInt64[np.ndarray, " B"],
    settings: AugmentSettings,
) -> Float[Tensor, "B T 54 2"]:
    """Give clips, each with probability `settings.geometric`, one of the four geometric changes."""
    draws = counter_uniform(keys_for(keys, "geometric"), 4)
    # Below `geometric` the same draw, stretched to 0..4, also says which of the four it is.
    kind = np.floor(4 * draws[:, 0] / settings.geometric)
    both_ways = 2 * draws[:, 1] - 1
    maps = np.select(
        [(kind == ROTATION)[:, None, None], (kind == SHEAR)[:, None, None]],
        [
            warp.rotation(settings.rotation_degrees * both_ways, aspect),
            warp.shear(settings.shear * draws[:, 1], draws[:, 2] < 0.5),
        ],
        warp.squeeze(settings.squeeze * draws[:, 1], settings.squeeze * draws[:, 2]),
    )
    rows = np.flatnonzero(kind < ARMS)
    if len(rows):
        index = torch.from_numpy(rows)
        landmarks = landmarks.index_copy(0, index, warp.project(landmarks[index], maps[rows]))

    rows = np.flatnonzero(kind == ARMS)
    if len(rows):
        index = torch.from_numpy(rows)
        draws = counter_uniform(keys_for(keys[rows], "arms"), 8).reshape(-1, 2, 2, 2)
        is_turned = draws[..., 0] < settings.arm_probability
        degrees = np.where(is_turned, settings.arm_degrees * (2 * draws[..., 1] - 1), 0.0)
        turned = warp.rotate_arms(landmarks[index], degrees, aspect[rows])
        landmarks = landmarks.index_copy(0, index, turned)
    return landmarks


def augment(
    landmarks: Float[Tensor, "B T 54 2"],
    is_valid: Bool[Tensor, "B T"],
    aspect: Float[np.ndarray, " B"],
    keys: UInt64[np.ndarray, " B"],
    settings: AugmentSettings,
    max_frames: int,
) -> tuple[Float[Tensor, "B N 54 2"], Bool[Tensor, "B N"]]:
    """Vary cleaned clips; noise comes later, see `add_noise`.

    Args:
        landmarks: coordinates in the image, NaN where missing and on padding.
        is_valid: True on a real frame; real frames come first.
        aspect: width of each clip's image over its height.
        keys: one per clip; a clip with the same key is varied in the same way.
        settings: what is done, and how often; what is off costs nothing.
        max_frames: the longest a clip may become.

    Returns:
        The clips, missing landmarks still missing, and which of their frames are real.
    """
    if not settings.enabled:
        return landmarks, is_valid
    if settings.speed > 1:
        landmarks, is_valid = change_speed(landmarks, is_valid, keys, settings.speed, max_frames)
    if settings.mirror > 0:
        is_mirrored = counter_events(keys_for(keys, "mirror"), 1, settings.mirror)[:, 0]
        rows = torch.from_numpy(np.flatnonzero(is_mirrored))
        landmarks = landmarks.index_copy(0, rows, mirror(landmarks[rows]))
    if settings.geometric > 0:
        landmarks = move_image(landmarks, aspect, keys, settings)
    return drop_landmarks(landmarks, keys, settings), is_valid


def add_noise(
    prepared: Float[Tensor, "B T 54 2"], keys: UInt64[np.ndarray, " B"], sigma: float
) -> Float[Tensor, "B T 54 2"]:
    """Add Gaussian noise to the landmarks that are there, in units of their box."""
    if sigma == 0:
        return prepared
    count = prepared[0].numel()
    noise = torch.from_numpy(counter_normal(keys_for(keys, "noise"), count))
    return prepared + sigma * noise.view_as(prepared)
