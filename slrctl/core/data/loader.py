"""Batches of clips: varied and shuffled for training, prepared once for evaluation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32

from slrctl.core.clip import (
    Clip,
    ClipBatch,
    batch_from_landmarks,
    collate,
    stack_landmarks,
    target_indices,
)
from slrctl.core.data.augment import add_noise, augment
from slrctl.core.data.dataset import SignDataset
from slrctl.core.data.mirror import lead_with_right
from slrctl.core.data.prepare import normalise, resample_frames
from slrctl.core.data.rectify import rectify_dataset
from slrctl.core.seeding import stable_seed
from slrctl.settings import Settings

# Clips are sorted by length within this many batches of the random order: large enough for batches
# of nearly one length, small enough that an epoch's batches differ from the last one's.
WINDOW = 20
# Clips normalised at a time before an evaluation; it changes no bit of the result.
PREPARED_TOGETHER = 64


def num_batches(num_clips: int, batch_size: int) -> int:
    """Batches an epoch has; the last, smaller one counts."""
    return -(-num_clips // batch_size)


def _fitted(clip: Clip, settings: Settings) -> Float32[np.ndarray, "T 54 2"]:
    """The clip's landmarks with the settled hand leading, resampled where it is too long."""
    landmarks = clip.landmarks
    if settings.prepare.dominant_hand == "right":
        landmarks = lead_with_right(landmarks, clip.aspect)
    if clip.num_frames <= settings.model.max_frames:
        return landmarks
    return resample_frames(landmarks, settings.model.max_frames)


def training_order(dataset: SignDataset, settings: Settings, epoch: int) -> list[list[Clip]]:
    """The batches of an epoch: every clip once, those of a batch about equally long.

    The order follows from (seed, epoch, clip ids), whatever the order of the file.
    """
    size = settings.train.batch_size
    clips = sorted(
        dataset, key=lambda clip: stable_seed(settings.seed, "order", epoch, clip.clip_id)
    )
    batches: list[list[Clip]] = []
    for start in range(0, len(clips), WINDOW * size):
        window = clips[start : start + WINDOW * size]
        window.sort(key=lambda clip: min(clip.num_frames, settings.model.max_frames))
        batches += [window[first : first + size] for first in range(0, len(window), size)]
    # Without this a window would run from its shortest clips to its longest.
    keys = [stable_seed(settings.seed, "batches", epoch, number) for number in range(len(batches))]
    return [batches[number] for number in np.argsort(keys, kind="stable")]


def _training_batch(
    clips: Sequence[Clip], classes: Sequence[str], settings: Settings, epoch: int
) -> ClipBatch:
    max_frames = settings.model.max_frames
    keys = np.array(
        [stable_seed(settings.seed, "augment", epoch, clip.clip_id) for clip in clips], np.uint64
    )
    aspect = np.array([clip.aspect for clip in clips], np.float64)
    landmarks, is_valid = stack_landmarks([_fitted(clip, settings) for clip in clips])
    landmarks, is_valid = augment(landmarks, is_valid, aspect, keys, settings.augment, max_frames)
    prepared = normalise(landmarks, settings.prepare)
    if settings.augment.enabled:
        prepared = add_noise(prepared, keys, settings.augment.noise)
    clip_ids = tuple(clip.clip_id for clip in clips)
    return batch_from_landmarks(prepared, is_valid, target_indices(clips, classes), clip_ids)


def training_batches(
    dataset: SignDataset, settings: Settings, epoch: int, *, start: int = 0
) -> Iterator[ClipBatch]:
    """Yield the batches of an epoch, augmented.

    What a clip looks like follows from (seed, epoch, clip id) alone: the batch size and the clips
    beside it change nothing but its padding.

    Args:
        dataset: cleaned clips, already through `rectify_dataset`: it is not done in every epoch.
        settings: the whole tree: seed, augment, prepare, model.max_frames, train.batch_size.
        epoch: counted from 0.
        start: the batch to begin with; a training that stopped after k batches goes on with k.

    Raises:
        ValueError: a clip's gloss is not among the data set's classes.
    """
    for clips in training_order(dataset, settings, epoch)[start:]:
        yield _training_batch(clips, dataset.classes, settings, epoch)


@dataclass(frozen=True, eq=False)
class PreparedClips:
    """Clips as the model takes them, normalised once for many evaluations, in order of length.

    `clips` hold coordinates in their boxes; `classes` is in the order of a model's logits.
    """

    clips: tuple[Clip, ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.clips)


def prepare_clips(dataset: SignDataset, settings: Settings) -> PreparedClips:
    """Rectify, resample and normalise every clip, without augmentation, and sort by length."""
    dataset = rectify_dataset(dataset, settings.prepare)
    fitted = [_fitted(clip, settings) for clip in dataset]
    order = sorted(range(len(fitted)), key=lambda number: len(fitted[number]))
    prepared: list[Clip] = []
    for first in range(0, len(order), PREPARED_TOGETHER):
        numbers = order[first : first + PREPARED_TOGETHER]
        landmarks, _ = stack_landmarks([fitted[number] for number in numbers])
        normalised = normalise(landmarks, settings.prepare).numpy()
        prepared += [
            replace(dataset[number], landmarks=frames[: len(fitted[number])].copy())
            for number, frames in zip(numbers, normalised, strict=True)
        ]
    return PreparedClips(tuple(prepared), dataset.classes)


def evaluation_batches(prepared: PreparedClips, batch_size: int) -> Iterator[ClipBatch]:
    """Yield prepared clips, each once, shortest first; `clip_ids` say whose row is whose.

    Raises:
        ValueError: a clip's gloss is not among the classes.
    """
    for first in range(0, len(prepared), batch_size):
        yield collate(prepared.clips[first : first + batch_size], prepared.classes)
