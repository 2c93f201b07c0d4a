"""Batches of clips: augmented and shuffled for training, prepared once for evaluation."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from slrctl.core.clip import (
    Clip,
    ClipBatch,
    batch_from_landmarks,
    collate,
    stack_landmarks,
    target_indices,
)
from slrctl.core.data.augment import add_noise, augment
from slrctl.core.data.cache import key_of
from slrctl.core.data.dataset import SignDataset
from slrctl.core.data.prepare import canonical_clips, canonical_settings, normalise, resample_frames
from slrctl.core.seeding import stable_seed
from slrctl.settings import Settings

# Clips are sorted by length within this many batches of the random order: large enough for batches
# of nearly one length, small enough that an epoch's batches differ from the last one's.
WINDOW = 20
# Clips normalised at a time before an evaluation; it changes no bit of the result.
PREPARED_TOGETHER = 64
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


def _fitted(
    clips: Iterable[Clip], settings: Settings, *, is_canonical: bool
) -> list[Float32[np.ndarray, "_ 54 2"]]:
    """Return canonical landmarks, resampled evenly if longer than the model takes."""
    if not is_canonical:
        clips = canonical_clips(clips, settings.prepare)
    max_frames = settings.model.max_frames
    return [
        clip.landmarks
        if clip.num_frames <= max_frames
        else resample_frames(clip.landmarks, max_frames)
        for clip in clips
    ]


def training_order(
    dataset: SignDataset, settings: Settings, epoch: int
) -> list[Int64[np.ndarray, " N"]]:
    """Return the rows of each batch of an epoch: every clip once, beside clips of about its length.

    The order follows from (seed, epoch, clip ids), whatever the order of the file.
    """
    size = settings.train.batch_size
    draws = (stable_seed(settings.seed, "order", epoch, clip.clip_id) for clip in dataset)
    order = np.argsort(np.fromiter(draws, np.uint64, len(dataset)), kind="stable")
    lengths = np.minimum(dataset.lengths, settings.model.max_frames)
    batches: list[Int64[np.ndarray, " N"]] = []
    for start in range(0, len(order), WINDOW * size):
        window = order[start : start + WINDOW * size]
        window = window[np.argsort(lengths[window], kind="stable")]
        batches += [window[first : first + size] for first in range(0, len(window), size)]
    # Without this a window would run from its shortest clips to its longest.
    keys = [stable_seed(settings.seed, "batches", epoch, number) for number in range(len(batches))]
    return [batches[number] for number in np.argsort(keys, kind="stable")]


def _augmented(
    clips: Sequence[Clip], settings: Settings, epoch: int, *, is_canonical: bool
) -> tuple[Float[Tensor, "B T 54 2"], Bool[Tensor, "B T"]]:
    """Augment and normalise clips for an epoch; also return the mask of frames without padding."""
    keys = np.array(
        [stable_seed(settings.seed, "augment", epoch, clip.clip_id) for clip in clips], np.uint64
    )
    aspect = np.array([clip.aspect for clip in clips], np.float64)
    landmarks, is_valid = stack_landmarks(_fitted(clips, settings, is_canonical=is_canonical))
    landmarks, is_valid = augment(
        landmarks, is_valid, aspect, keys, settings.augment, settings.model.max_frames
    )
    prepared = normalise(landmarks, settings.prepare)
    if settings.augment.enabled:
        prepared = add_noise(prepared, keys, settings.augment.noise)
    return prepared, is_valid


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
    lengths = np.minimum(dataset.lengths, settings.model.max_frames)
    num_shares = num_ranks * settings.train.accumulate
    is_canonical = _is_canonical(dataset, settings)
    for rows in training_order(dataset, settings, epoch)[start:]:
        count = num_micro_batches(len(rows) * int(lengths[rows].max()), num_shares, device)
        cut = {n: rows[n::count] for n in range(rank, min(count, len(rows)), num_ranks)}
        clips = [dataset[row] for own in cut.values() for row in own.tolist()]
        if not clips:  # the batch has fewer micro-batches than there are processes
            yield []
            continue
        # Together, which changes no bit of a clip.
        augmented, is_valid = _augmented(clips, settings, epoch, is_canonical=is_canonical)
        micro_batches = []
        end = 0
        for index, own in cut.items():
            place = slice(end, end := end + len(own))
            num_frames = int(is_valid[place].sum(dim=1).max())
            batch = batch_from_landmarks(
                augmented[place, :num_frames],
                is_valid[place, :num_frames],
                target_indices(clips[place], dataset.classes),
                tuple(clip.clip_id for clip in clips[place]),
            )
            micro_batches.append(MicroBatch(index, batch))
        yield micro_batches


def prepare_clips(dataset: SignDataset, settings: Settings) -> SignDataset:
    """Resample and normalise every clip, without augmentation, and sort them by length.

    Their landmarks then hold coordinates in the boxes of body and hands. The result is stored in
    the cache of the data set, if it has one.
    """
    cache = dataset.cache
    if cache is None:
        return dataset.with_clips(_prepared(dataset, settings))
    key = key_of(
        fingerprint=dataset.fingerprint(),
        prepare=settings.prepare.model_dump(mode="json"),
        max_frames=settings.model.max_frames,
    )
    stored = cache.find(key)
    if stored is None:
        about = {"source": dataset.source, "kind": "normalised"}
        try:
            stored = cache.store(key, _prepared(dataset, settings), about)
        except OSError:  # a full disk costs memory, but no result
            return dataset.with_clips(_prepared(dataset, settings))
    return replace(dataset, clips=stored)


def _prepared(dataset: SignDataset, settings: Settings) -> Iterator[Clip]:
    is_canonical = _is_canonical(dataset, settings)
    order = np.argsort(np.minimum(dataset.lengths, settings.model.max_frames), kind="stable")
    for first in range(0, len(order), PREPARED_TOGETHER):
        clips = [dataset[row] for row in order[first : first + PREPARED_TOGETHER].tolist()]
        fitted = _fitted(clips, settings, is_canonical=is_canonical)
        landmarks, _ = stack_landmarks(fitted)
        normalised = normalise(landmarks, settings.prepare).numpy()
        for clip, cut, frames in zip(clips, fitted, normalised, strict=True):
            yield replace(clip, landmarks=frames[: len(cut)].copy())


def evaluation_batches(
    prepared: SignDataset, batch_size: int, *, start: int = 0, step: int = 1
) -> Iterator[ClipBatch]:
    """Yield prepared clips, each once, shortest first; `clip_ids` say whose row is whose.

    Args:
        prepared: clips as `prepare_clips` returns them.
        batch_size: clips in each batch but the last.
        start: the batch to begin with.
        step: from one batch to the next, for several processes that take turns.

    Raises:
        ValueError: a clip's gloss is not among the classes.
    """
    for first in range(start * batch_size, len(prepared), step * batch_size):
        yield collate(prepared[first : first + batch_size], prepared.classes)
