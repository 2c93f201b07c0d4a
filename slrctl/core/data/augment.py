"""Augmentation of training clips: camera, speed, mirror images, missing landmarks, noise.

Hands and body move together, on the cleaned coordinates, before normalisation; only noise comes
after it. Every draw belongs to a clip's key and a purpose (`slrctl.core.seeding`), and all
arithmetic on landmarks is elementwise, so the augmented clip is bit-identical whatever the clips
beside it, its place in the batch and the length it is padded to.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt64
from torch import Tensor

from slrctl.core import skeleton
from slrctl.core.data.mirror import mirror_landmarks
from slrctl.core.data.prepare import even_frames
from slrctl.core.seeding import counter_events, counter_normal, counter_uniform, keys_for
from slrctl.settings import AugmentSettings

_HANDS = [list(range(*hand.indices(54))) for hand in (skeleton.LEFT_HAND, skeleton.RIGHT_HAND)]
# The left arm, then the right one: shoulder, elbow, and what moves along.
_ARMS = (
    [skeleton.LEFT_SHOULDER, skeleton.LEFT_ELBOW, skeleton.LEFT_WRIST, *_HANDS[0]],
    [skeleton.RIGHT_SHOULDER, skeleton.RIGHT_ELBOW, skeleton.RIGHT_WRIST, *_HANDS[1]],
)
_IS_HAND = np.zeros((2, skeleton.NUM_LANDMARKS), dtype=bool)
_IS_HAND[0, skeleton.LEFT_HAND] = True
_IS_HAND[1, skeleton.RIGHT_HAND] = True
# Landmarks far outside a sheared image could cross its horizon; their depth stops short of it.
_NEAREST_DEPTH = 0.2
# The four geometric augmentations, in the order their numbers are drawn.
_ROTATION, _SHEAR, _, _ARM_ROTATION = range(4)

_Entry = Float[np.ndarray, " B"] | float


def _matrices(*rows: tuple[_Entry, _Entry, _Entry]) -> Float[np.ndarray, "B 3 3"]:
    entries = np.broadcast_arrays(*(entry for row in rows for entry in row))
    return np.stack(entries, axis=-1).reshape(-1, 3, 3).astype(np.float64)


def rotation(
    degrees: Float[np.ndarray, " B"], aspect: Float[np.ndarray, " B"]
) -> Float[np.ndarray, "B 3 3"]:
    """Turn the image about its centre."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return _matrices(
        (cos, -sin / aspect, 0.5 - 0.5 * cos + 0.5 * sin / aspect),
        (sin * aspect, cos, 0.5 - 0.5 * cos - 0.5 * sin * aspect),
        (0.0, 0.0, 1.0),
    )


def shear(
    share: Float[np.ndarray, " B"], is_left: Bool[np.ndarray, " B"]
) -> Float[np.ndarray, "B 3 3"]:
    """Move both corners of the left or of the right side of the image inwards, in perspective.

    They move by the same share of the width and of the height, as in SPOTER; the corners of the
    other side stay. Shares up to 0.25 keep the horizon an image's width away from the image.
    """
    # The homography that keeps the right side, solved by hand: depth is 1 - 2 s x; on the left
    # side (x = 0) x becomes s and y becomes s + (1 - 2 s) y, on the right side both stay.
    left = _matrices(
        (1 - 3 * share, 0.0, share),
        (-share, 1 - 2 * share, share),
        (-2 * share, 0.0, 1.0),
    )
    flip = np.array([[-1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    return np.where(is_left[:, None, None], left, flip @ left @ flip)


def squeeze(
    left: Float[np.ndarray, " B"], right: Float[np.ndarray, " B"]
) -> Float[np.ndarray, "B 3 3"]:
    """Cut shares of the width off both sides and stretch what remains to the whole width."""
    width = 1 - left - right
    return _matrices((1 / width, 0.0, -left / width), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def project(
    landmarks: Float[Tensor, "B T 54 2"], maps: Float[np.ndarray, "B 3 3"]
) -> Float[Tensor, "B T 54 2"]:
    """Map every landmark by its clip's homography; missing ones stay missing."""
    m = torch.from_numpy(maps).to(landmarks.dtype)[:, :, :, None, None]
    x, y = landmarks.movedim(-1, 0).contiguous()
    depth = (m[:, 2, 0] * x + m[:, 2, 1] * y + m[:, 2, 2]).clamp(min=_NEAREST_DEPTH)
    return torch.stack(
        [
            (m[:, 0, 0] * x + m[:, 0, 1] * y + m[:, 0, 2]) / depth,
            (m[:, 1, 0] * x + m[:, 1, 1] * y + m[:, 1, 2]) / depth,
        ],
        dim=-1,
    )


def _turn(
    points: Float[Tensor, "B T V 2"],
    pivot: Float[Tensor, "B T 2"],
    degrees: Float[np.ndarray, " B"],
    aspect: Float[np.ndarray, " B"],
) -> Float[Tensor, "B T V 2"]:
    """Rotate the points of each frame about a pivot; nothing moves where that is missing."""
    radians = np.radians(degrees)
    entries = np.stack([np.cos(radians), np.sin(radians), aspect])
    cos, sin, wide = torch.from_numpy(entries).to(points.dtype)[:, :, None, None]
    x, y = (points - pivot[:, :, None]).unbind(dim=-1)
    turned = torch.stack([cos * x - sin / wide * y, sin * wide * x + cos * y], dim=-1)
    turned = turned + pivot[:, :, None]
    is_still = pivot.isnan().any(-1) | torch.from_numpy(degrees == 0)[:, None]
    return torch.where(is_still[:, :, None, None], points, turned)


def rotate_arms(
    landmarks: Float[Tensor, "B T 54 2"],
    degrees: Float[np.ndarray, "B 2 2"],
    aspect: Float[np.ndarray, " B"],
) -> Float[Tensor, "B T 54 2"]:
    """Rotate arms in their joints; forearm and hand move along.

    `degrees` hold for the left and the right arm the angle at the shoulder and at the elbow.
    """
    moved = landmarks.clone()
    for arm, chain in enumerate(_ARMS):
        for joint in range(2):
            if not degrees[:, arm, joint].any():
                continue
            beyond = chain[joint + 1 :]
            moved[:, :, beyond] = _turn(
                moved[:, :, beyond], moved[:, :, chain[joint]], degrees[:, arm, joint], aspect
            )
    return moved


def _lose(
    is_present: Bool[Tensor, "B T V"], is_lost: Bool[np.ndarray, "#B #T #V"]
) -> Bool[Tensor, "B T V"]:
    """Drop landmarks, but not in a clip that would lose all of them."""
    kept = is_present & ~torch.from_numpy(is_lost)
    is_spared = ~kept.any(dim=2).any(dim=1)
    return torch.where(is_spared[:, None, None], is_present, kept)


def drop_landmarks(
    landmarks: Float[Tensor, "B T 54 2"],
    keys: UInt64[np.ndarray, " B"],
    settings: AugmentSettings,
) -> Float[Tensor, "B T 54 2"]:
    """Drop whole frames, single landmarks, and one hand of a clip, each with its own probability.

    A frame without landmarks is still a frame. Draws are numbered by frame and landmark, so the
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
        is_present = _lose(is_present, (is_lost & _IS_HAND[side])[:, None])
    return landmarks.masked_fill(~is_present[..., None], torch.nan)


def change_speed(
    landmarks: Float[Tensor, "B T 54 2"],
    is_valid: Bool[Tensor, "B T"],
    keys: UInt64[np.ndarray, " B"],
    speed: float,
    max_frames: int,
) -> tuple[Float[Tensor, "B N 54 2"], Bool[Tensor, "B N"]]:
    """Resample each clip to between 1/speed and speed times its frames, at most `max_frames`.

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


# Speeds are drawn at so many points of a clip and change linearly between them.
_NUM_SPEEDS = 6


def warped_positions(
    keys: UInt64[np.ndarray, " B"], num_frames: int, settings: AugmentSettings
) -> Float[Tensor, "B N"]:
    """Draw rising positions between 0 and 1 at which the frames of each clip are taken.

    The speed varies within the clip, up to a factor exp(2 `time_warp`) either way, and up to
    `time_cut` of the clip is cut off at either end.
    """
    positions = np.broadcast_to(np.linspace(0, 1, num_frames), (len(keys), num_frames))
    if settings.time_warp > 0 and num_frames > 1:
        draws = 2 * counter_uniform(keys_for(keys, "time warp"), _NUM_SPEEDS) - 1
        places = np.linspace(0, _NUM_SPEEDS - 1, num_frames - 1)
        low = np.minimum(places.astype(np.int64), _NUM_SPEEDS - 2)
        share = places - low
        speeds = np.exp(2 * settings.time_warp * draws)
        steps = speeds[:, low] * (1 - share) + speeds[:, low + 1] * share
        passed = np.cumsum(steps, axis=1)
        positions = np.pad(passed / passed[:, -1:], ((0, 0), (1, 0)))
    if settings.time_cut > 0:
        cuts = settings.time_cut * counter_uniform(keys_for(keys, "time cut"), 2)
        start, end = cuts[:, :1], 1 - cuts[:, 1:]
        positions = start + positions * (end - start)
    return torch.from_numpy(np.ascontiguousarray(positions))


def affine(
    draws: Float[np.ndarray, "B 4"], strength: float, aspect: Float[np.ndarray, " B"]
) -> Float[np.ndarray, "B 3 3"]:
    """Rotate, stretch and slant the image about its centre, from four draws in (-1, 1) a clip.

    At strength 1 up to 13 degrees, 15 % in either direction and 0.1 of the height.
    """
    angle = np.radians(13 * strength) * draws[:, 0]
    wide, high = (1 + 0.15 * strength * draws[:, 1:3]).T
    slant = 0.1 * strength * draws[:, 3]
    a, b = np.cos(angle) * wide, (slant - np.sin(angle) * high) / aspect
    c, d = np.sin(angle) * wide * aspect, np.cos(angle) * high
    return _matrices((a, b, 0.5 - 0.5 * (a + b)), (c, d, 0.5 - 0.5 * (c + d)), (0.0, 0.0, 1.0))


def vary_proportions(
    placed: Float[Tensor, "B T 54 2"], keys: UInt64[np.ndarray, " B"], strength: float
) -> Float[Tensor, "B T 54 2"]:
    """Scale and shift placed landmarks, as if the shoulders had another width or place.

    At strength 1 up to 15 % and a tenth of the shoulder distance in either direction.
    """
    if strength == 0:
        return placed
    draws = 2 * counter_uniform(keys_for(keys, "proportions"), 4) - 1
    numbers = torch.from_numpy(draws).to(placed.dtype)[:, None, None]
    return placed * (1 + 0.15 * strength * numbers[..., :2]) + 0.1 * strength * numbers[..., 2:]


def scale_hands(
    landmarks: Float[Tensor, "B T 54 2"], factors: Float[np.ndarray, "B 2"]
) -> Float[Tensor, "B T 54 2"]:
    """Scale the left and the right hand about the mean of their landmarks."""
    scaled = landmarks.clone()
    for side, hand in enumerate(_HANDS):
        points = landmarks[:, :, hand]
        centre = points.nanmean(dim=2, keepdim=True)
        factor = torch.from_numpy(factors[:, side]).to(points.dtype)[:, None, None, None]
        scaled[:, :, hand] = centre + factor * (points - centre)
    return scaled


def move_image(
    landmarks: Float[Tensor, "B T 54 2"],
    aspect: Float[np.ndarray, " B"],
    keys: UInt64[np.ndarray, " B"],
    settings: AugmentSettings,
) -> Float[Tensor, "B T 54 2"]:
    """Apply one of the four geometric changes to clips, each with probability `geometric`."""
    draws = counter_uniform(keys_for(keys, "geometric"), 4)
    # Below `geometric` the same draw, stretched to 0..4, also says which of the four it is.
    kind = np.floor(4 * draws[:, 0] / settings.geometric)
    both_ways = 2 * draws[:, 1] - 1
    maps = np.select(
        [(kind == _ROTATION)[:, None, None], (kind == _SHEAR)[:, None, None]],
        [
            rotation(settings.rotation_degrees * both_ways, aspect),
            shear(settings.shear * draws[:, 1], draws[:, 2] < 0.5),
        ],
        squeeze(settings.squeeze * draws[:, 1], settings.squeeze * draws[:, 2]),
    )
    rows = np.flatnonzero(kind < _ARM_ROTATION)
    if len(rows):
        index = torch.from_numpy(rows)
        landmarks = landmarks.index_copy(0, index, project(landmarks[index], maps[rows]))

    rows = np.flatnonzero(kind == _ARM_ROTATION)
    if len(rows):
        index = torch.from_numpy(rows)
        draws = counter_uniform(keys_for(keys[rows], "arms"), 8).reshape(-1, 2, 2, 2)
        is_turned = draws[..., 0] < settings.arm_probability
        degrees = np.where(is_turned, settings.arm_degrees * (2 * draws[..., 1] - 1), 0.0)
        turned = rotate_arms(landmarks[index], degrees, aspect[rows])
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
    """Augment cleaned clips; noise comes later, see `add_noise`.

    Args:
        landmarks: coordinates in the image, NaN where missing and on padding.
        is_valid: True on a real frame; real frames come first.
        aspect: width of each clip's image over its height.
        keys: one per clip; a clip with the same key is augmented in the same way.
        settings: probabilities and ranges; what is off costs nothing.
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
        mirrored = torch.from_numpy(mirror_landmarks(landmarks[rows].numpy()))
        landmarks = landmarks.index_copy(0, rows, mirrored)
    if settings.geometric > 0:
        landmarks = move_image(landmarks, aspect, keys, settings)
    if settings.affine > 0:
        draws = 2 * counter_uniform(keys_for(keys, "affine"), 4) - 1
        landmarks = project(landmarks, affine(draws, settings.affine, aspect))
    if settings.hand_size > 0:
        draws = 2 * counter_uniform(keys_for(keys, "hand size"), 2) - 1
        landmarks = scale_hands(landmarks, 1 + settings.hand_size * draws)
    return drop_landmarks(landmarks, keys, settings), is_valid


def jitter(
    landmarks: Float[Tensor, "B T 54 2"],
    keys: UInt64[np.ndarray, " B"],
    sigma: Float[Tensor, "B 1"],
) -> Float[Tensor, "B T 54 2"]:
    """Add Gaussian noise of each clip's sigma, as a tracker does; none where that is NaN."""
    count = landmarks[0].numel()
    noise = torch.from_numpy(counter_normal(keys_for(keys, "jitter"), count)).view_as(landmarks)
    return landmarks + sigma.nan_to_num(nan=0.0)[..., None, None] * noise


def add_noise(
    prepared: Float[Tensor, "B T 54 2"], keys: UInt64[np.ndarray, " B"], sigma: float
) -> Float[Tensor, "B T 54 2"]:
    """Add Gaussian noise to the present landmarks, in units of their box."""
    if sigma == 0:
        return prepared
    count = prepared[0].numel()
    noise = torch.from_numpy(counter_normal(keys_for(keys, "noise"), count))
    return prepared + sigma * noise.view_as(prepared)
