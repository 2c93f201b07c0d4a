"""Batches of clips: augmented and shuffled for training, prepared once for evaluation."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from slrctl.core.clip import (
    Clip,
    ClipBatch,
    batch_from_landmarks,
    stack_landmarks,
    target_indices,
)
from slrctl.core.data.augment import add_noise, augment, jitter, vary_proportions, warped_positions
from slrctl.core.data.dataset import SignDataset
from slrctl.core.data.prepare import (
    canonical_clips,
    canonical_settings,
    even_positions,
    interpolate_frames,
    lose_halves,
    normalise,
    place,
    resample_frames,
    usual_shoulders,
)
from slrctl.core.seeding import stable_seed
from slrctl.settings import MODELS_OF_PLACED, Settings

# Clips are sorted by length within this many batches of the random order: large enough for batches
# of nearly one length, small enough that an epoch's batches differ from the last one's.
WINDOW = 20
# A batch of so many frames, padding included, is one micro-batch on a CPU; four times as many two.
FRAMES_OF_MICRO_BATCH = 306


def num_batches(num_clips: int, batch_size: int) -> int:
    """Count the batches of an epoch, the last, smaller one included."""
    return -(-num_clips // batch_size)


def _is_canonical(dataset: SignDataset, settings: Settings) -> bool:
    """True if the clips are in their canonical form already.

    Raises:
        ValueError: they are in that of other settings.
    """
    if canonical_settings(dataset.canonical) == canonical_settings(settings.prepare):
        return True
    if canonical_settings(dataset.canonical):
        raise ValueError(
            f"{dataset.name}: its clips were brought into the form of other `prepare` settings; "
            "read them again with these"
        )
    return False


def _frame_counts(dataset: SignDataset, settings: Settings) -> Int64[np.ndarray, " N"]:
    """Return the frames that the model sees of each clip."""
    if num_frames := settings.prepare.num_frames:
        return np.full(len(dataset), num_frames)
    return np.minimum(dataset.lengths, settings.model.max_frames)


def _stacked(
    clips: Sequence[Clip], settings: Settings, *, is_canonical: bool
) -> tuple[Float[Tensor, "B T 54 2"], Bool[Tensor, "B T"]]:
    """Pad canonical clips to one length, resampled evenly if longer than the model takes."""
    canonical = clips if is_canonical else canonical_clips(clips, settings.prepare)
    max_frames = settings.prepare.num_frames or settings.model.max_frames
    is_kept = settings.prepare.num_frames > 0  # to be interpolated from all frames
    return stack_landmarks(
        [
            clip.landmarks
            if is_kept or clip.num_frames <= max_frames
            else resample_frames(clip.landmarks, max_frames)
            for clip in canonical
        ]
    )


def training_order(
    dataset: SignDataset, settings: Settings, epoch: int
) -> list[Int64[np.ndarray, " N"]]:
    """Return the rows of each batch of an epoch: every clip once, beside clips of about its length.

    The order follows from (seed, epoch, clip ids), whatever the order of the file.
    """
    size = settings.train.batch_size
    draws = (stable_seed(settings.seed, "order", epoch, clip.clip_id) for clip in dataset)
    order = np.argsort(np.fromiter(draws, np.uint64, len(dataset)), kind="stable")
    lengths = _frame_counts(dataset, settings)
    batches: list[Int64[np.ndarray, " N"]] = []
    for start in range(0, len(order), WINDOW * size):
        window = order[start : start + WINDOW * size]
        window = window[np.argsort(lengths[window], kind="stable")]
        batches += [window[first : first + size] for first in range(0, len(window), size)]
    # Without this a window would run from its shortest clips to its longest.
    keys = [stable_seed(settings.seed, "batches", epoch, number) for number in range(len(batches))]
    return [batches[number] for number in np.argsort(keys, kind="stable")]


def clip_batch(
    clips: Sequence[Clip],
    classes: Sequence[str] | None,
    settings: Settings,
    *,
    is_canonical: bool = False,
    epoch: int | None = None,
) -> ClipBatch:
    """Prepare clips and put them into one batch; augmented as in an epoch, if one is given.

    Clips in other company are prepared to the same bits.

    Args:
        clips: cleaned, as `load_dataset` returns them.
        classes: the glosses in the order of the logits; without them `target` is None.
        settings: the whole tree: prepare, model.max_frames, in an epoch seed and augment too.
        is_canonical: the clips are in the canonical form of `settings.prepare` already.
        epoch: counted from 0.

    Raises:
        ValueError: a clip's gloss is not among the classes.
    """
    landmarks, is_valid = _stacked(clips, settings, is_canonical=is_canonical)
    landmarks = lose_halves(landmarks)
    augmentation, num_frames = settings.augment, settings.prepare.num_frames
    is_augmented = epoch is not None and augmentation.enabled
    keys = np.array(
        [stable_seed(settings.seed, "augment", epoch, clip.clip_id) for clip in clips], np.uint64
    )
    if num_frames:
        positions = (
            warped_positions(keys, num_frames, augmentation)
            if is_augmented
            else even_positions(len(clips), num_frames)
        )
        landmarks = interpolate_frames(landmarks, is_valid.sum(dim=1), positions)
        is_valid = torch.ones(landmarks.shape[:2], dtype=torch.bool)
    if is_augmented:
        aspect = np.array([clip.aspect for clip in clips], np.float64)
        landmarks, is_valid = augment(
            landmarks, is_valid, aspect, keys, augmentation, settings.model.max_frames
        )
        if augmentation.jitter > 0:
            landmarks = jitter(landmarks, keys, augmentation.jitter * usual_shoulders(landmarks))
    prepared, placed = normalise(landmarks, settings.prepare), None
    if is_augmented:
        prepared = add_noise(prepared, keys, augmentation.noise)
    if settings.model.name in MODELS_OF_PLACED:
        placed = place(landmarks)
        if is_augmented:
            placed = vary_proportions(placed, keys, augmentation.proportions)
    clip_ids = tuple(clip.clip_id for clip in clips)
    target = None if classes is None else target_indices(clips, classes)
    return batch_from_landmarks(prepared, is_valid, target, clip_ids, placed)


@dataclass(frozen=True, eq=False)
class MicroBatch:
    """Clips of a batch that are computed at once; dropout seeds depend on its index."""

    index: int
    clips: ClipBatch


def num_micro_batches(num_frames: int, num_shares: int, device: torch.device) -> int:
    """Say how many micro-batches a batch of so many frames, padding included, is cut into.

    Every share of the batch is cut alike: on a CPU for threads that work side by side, elsewhere
    not at all. A micro-batch takes some time however short it is, so on a CPU their number grows
    slower than the frames. It does not depend on the number of threads.
    """
    if device.type != "cpu":
        return num_shares
    return num_shares * math.ceil(math.sqrt(num_frames / num_shares / FRAMES_OF_MICRO_BATCH))


def training_micro_batches(
    dataset: SignDataset,
    settings: Settings,
    epoch: int,
    *,
    device: torch.device,
    start: int = 0,
    rank: int = 0,
    num_ranks: int = 1,
) -> Iterator[list[MicroBatch]]:
    """Yield the micro-batches that a process has of each batch, those without clips left out.

    Micro-batch n of N has the clips n, n + N, ... of the batch, and belongs to rank n modulo the
    number of ranks. The augmented clip follows from (seed, epoch, clip id) alone: the batch size
    and the clips beside it change nothing but its padding.

    Args:
        dataset: cleaned clips, brought into their canonical form here if they are not yet.
        settings: the whole tree: seed, augment, prepare, model.max_frames, train.
        epoch: counted from 0.
        device: on which the micro-batches are computed.
        start: the batch to begin with; a training that stopped after k batches goes on with k.
        rank: this process.
        num_ranks: processes that train together.

    Raises:
        ValueError: a clip's gloss is not among the data set's classes.
    """
    lengths = _frame_counts(dataset, settings)
    num_shares = num_ranks * settings.train.accumulate
    is_canonical = _is_canonical(dataset, settings)
    for rows in training_order(dataset, settings, epoch)[start:]:
        count = num_micro_batches(len(rows) * int(lengths[rows].max()), num_shares, device)
        cut = {n: rows[n::count] for n in range(rank, min(count, len(rows)), num_ranks)}
        yield [
            MicroBatch(
                index,
                clip_batch(
                    [dataset[row] for row in own.tolist()],
                    dataset.classes,
                    settings,
                    is_canonical=is_canonical,
                    epoch=epoch,
                ),
            )
            for index, own in cut.items()
        ]


def evaluation_batches(
    dataset: SignDataset,
    settings: Settings,
    *,
    batch_size: int | None = None,
    start: int = 0,
    step: int = 1,
) -> Iterator[ClipBatch]:
    """Yield batches without augmentation, each clip once, shortest first.

    Args:
        dataset: cleaned clips, brought into their canonical form here if they are not yet.
        settings: the whole tree: prepare, model.max_frames, evaluate.
        batch_size: clips in each batch but the last; that of the evaluation if absent.
        start: the batch to begin with.
        step: from one batch to the next, for several processes that take turns.

    Raises:
        ValueError: a clip's gloss is not among the classes.
    """
    is_canonical = _is_canonical(dataset, settings)
    size = batch_size or settings.evaluate.batch_size
    order = np.argsort(_frame_counts(dataset, settings), kind="stable")
    for first in range(start * size, len(order), step * size):
        clips = [dataset[row] for row in order[first : first + size].tolist()]
        yield clip_batch(clips, dataset.classes, settings, is_canonical=is_canonical)
