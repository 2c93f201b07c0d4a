"""One recorded sign, and a padded batch of prepared ones."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from slrctl.core import skeleton


@dataclass(frozen=True, eq=False)
class Clip:
    """One recorded sign.

    `landmarks` hold x (right) and y (down), divided by the width and height of the image; NaN where
    a landmark was not detected. After `prepare_clip` they hold coordinates in the boxes of the
    body and of each hand. `aspect` is width / height of the image, 1.0 if unknown.
    """

    clip_id: str
    gloss: str
    landmarks: Float32[np.ndarray, "T 54 2"]
    signer: str | None = None
    session: str | None = None
    split: str | None = None
    fps: float | None = None
    aspect: float = 1.0

    @property
    def num_frames(self) -> int:
        return len(self.landmarks)


@dataclass(frozen=True, eq=False)
class ClipBatch:
    """Prepared clips, padded to the longest of them.

    `is_valid` is True on a real frame and False on padding; `left_is_present` and
    `right_is_present` are True where at least one landmark of that hand was detected. Features are
    0 on padding and on missing landmarks. `target` is None where the glosses are not known.
    `placed` are all 54 landmarks from the clip's usual neck in its usual shoulder distance; None in
    a batch that was collated from single clips, and for models that do not read them.
    """

    left_hand: Float[Tensor, "B T 42"]
    right_hand: Float[Tensor, "B T 42"]
    body: Float[Tensor, "B T 24"]
    is_valid: Bool[Tensor, "B T"]
    left_is_present: Bool[Tensor, "B T"]
    right_is_present: Bool[Tensor, "B T"]
    target: Int64[Tensor, " B"] | None
    clip_ids: tuple[str, ...]
    placed: Float[Tensor, "B T 54 2"] | None = None

    def __len__(self) -> int:
        return len(self.is_valid)

    def to(self, device: torch.device) -> "ClipBatch":
        """Return the batch on another device."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(
            self, **{name: value.to(device, non_blocking=True) for name, value in tensors.items()}
        )


def groups_of_clips(clips: Iterable[Clip], num_frames: int) -> Iterator[list[Clip]]:
    """Yield successive groups of clips that have at least so many frames together."""
    group: list[Clip] = []
    frames = 0
    for clip in clips:
        group.append(clip)
        frames += clip.num_frames
        if frames >= num_frames:
            yield group
            group, frames = [], 0
    if group:
        yield group


def concatenate_frames(
    clips: Sequence[Clip],
) -> tuple[Float32[np.ndarray, "F 54 2"], Float32[np.ndarray, " F"]]:
    """Return the frames of all clips in one array, and the aspect of each frame."""
    aspects = np.array([clip.aspect for clip in clips], np.float32)
    return (
        np.concatenate([clip.landmarks for clip in clips]),
        np.repeat(aspects, [clip.num_frames for clip in clips]),
    )


def stack_landmarks(
    landmarks: Sequence[Float32[np.ndarray, "_ 54 2"]],
) -> tuple[Float[Tensor, "B T 54 2"], Bool[Tensor, "B T"]]:
    """Pad clips with NaN to the longest one; also return the mask of recorded frames."""
    longest = max(len(frames) for frames in landmarks)
    padded = np.full((len(landmarks), longest, skeleton.NUM_LANDMARKS, 2), np.nan, np.float32)
    for row, frames in zip(padded, landmarks, strict=True):
        row[: len(frames)] = frames
    lengths = torch.tensor([len(frames) for frames in landmarks])
    return torch.from_numpy(padded), torch.arange(longest) < lengths[:, None]


def batch_from_landmarks(
    prepared: Float[Tensor, "B T 54 2"],
    is_valid: Bool[Tensor, "B T"],
    target: Int64[Tensor, " B"] | None,
    clip_ids: tuple[str, ...],
    placed: Float[Tensor, "B T 54 2"] | None = None,
) -> ClipBatch:
    """Split prepared landmarks into the three streams, with the masks of present hands."""
    # A sum is NaN if one of the two is; reducing an axis of two takes several times as long.
    detected = ~(prepared[..., 0] + prepared[..., 1]).isnan()  # B T V
    values = torch.where(detected[..., None], prepared, 0.0)
    return ClipBatch(
        left_hand=values[:, :, skeleton.LEFT_HAND].flatten(2),
        right_hand=values[:, :, skeleton.RIGHT_HAND].flatten(2),
        body=values[:, :, skeleton.BODY].flatten(2),
        is_valid=is_valid,
        left_is_present=detected[:, :, skeleton.LEFT_HAND].any(-1) & is_valid,
        right_is_present=detected[:, :, skeleton.RIGHT_HAND].any(-1) & is_valid,
        target=target,
        clip_ids=clip_ids,
        placed=None if placed is None else placed.nan_to_num(nan=0.0),
    )


def target_indices(clips: Sequence[Clip], classes: Sequence[str]) -> Int64[Tensor, " B"]:
    """Return the label of each clip: the index of its gloss among the classes.

    Raises:
        ValueError: a gloss is not among the classes.
    """
    index = {gloss: label for label, gloss in enumerate(classes)}
    unknown = sorted({clip.gloss for clip in clips} - index.keys())
    if unknown:
        raise ValueError(
            f"gloss {unknown[0]!r} is not among the {len(index)} classes; "
            "leave its clips out, or use the classes of a set that has it"
        )
    return torch.tensor([index[clip.gloss] for clip in clips], dtype=torch.int64)


def collate(clips: Sequence[Clip], classes: Sequence[str] | None = None) -> ClipBatch:
    """Pad prepared clips into one batch.

    Args:
        clips: clips whose landmarks went through `prepare_clip`.
        classes: the glosses in the order of the logits; without them `target` is None.

    Raises:
        ValueError: there is no clip, or a gloss is not among the classes.
    """
    if not clips:
        raise ValueError("collate got no clips; a batch needs at least one")
    padded, is_valid = stack_landmarks([clip.landmarks for clip in clips])
    target = None if classes is None else target_indices(clips, classes)
    return batch_from_landmarks(padded, is_valid, target, tuple(clip.clip_id for clip in clips))


def missing_hand_share(clips: Sequence[Clip]) -> tuple[float, float]:
    """Return the share of frames without the left hand, and without the right one.

    Clips are read one by one, so that they need not fit into memory.
    """
    missing = np.zeros(2)
    num_frames = 0
    for clip in clips:
        num_frames += clip.num_frames
        is_missing = np.asarray(np.isnan(clip.landmarks).any(-1))
        hands = (skeleton.LEFT_HAND, skeleton.RIGHT_HAND)
        missing += [is_missing[:, hand].all(axis=1).sum() for hand in hands]
    left, right = missing / num_frames
    return float(left), float(right)
