"""Clips and predictions for tests."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from slrctl.core import skeleton
from slrctl.core.clip import Clip, ClipBatch
from slrctl.core.data.batches import training_micro_batches
from slrctl.core.data.dataset import SignDataset
from slrctl.evaluation.predictions import Predictions
from slrctl.settings import Settings


def prepared_clip(rng: torch.Generator, clip_id: str, num_frames: int, gloss: str = "0") -> Clip:
    """Random landmarks within their boxes, as preparation gives them; all are present."""
    landmarks = torch.rand(num_frames, 54, 2, generator=rng).sub(0.5).numpy()
    return Clip(clip_id, gloss, landmarks.astype(np.float32))


def signing_clip(seed: int, num_frames: int, gloss: str = "0") -> Clip:
    """A person in the image; single landmarks are missing, and hands come and go."""
    rng = np.random.default_rng(seed)
    landmarks = rng.uniform(0.2, 0.8, (num_frames, 54, 2)).astype(np.float32)
    trunk = [skeleton.NOSE, skeleton.NECK, skeleton.RIGHT_SHOULDER, skeleton.LEFT_SHOULDER]
    places = np.array([(0.5, 0.3), (0.5, 0.5), (0.38, 0.5), (0.62, 0.5)])
    landmarks[:, trunk] = places + rng.normal(0, 0.01, (num_frames, 4, 2))
    landmarks[rng.random((num_frames, 54)) < 0.1] = np.nan
    for hand in (skeleton.LEFT_HAND, skeleton.RIGHT_HAND):
        landmarks[rng.random(num_frames) < 0.3, hand] = np.nan
    return Clip(f"clip {seed}", gloss, landmarks)


def whole_batches(
    dataset: SignDataset, settings: Settings, epoch: int, start: int = 0
) -> Iterator[ClipBatch]:
    """The batches of an epoch, each in one piece as on an accelerator."""
    settings = Settings.layered(settings.model_dump(), {"train": {"accumulate": 1}})
    device = torch.device("meta")
    for (whole,) in training_micro_batches(dataset, settings, epoch, device=device, start=start):
        yield whole.clips


def predictions_of(
    log_probabilities: np.ndarray,
    target: Sequence[int] | np.ndarray,
    signers: Sequence[str | None] | None = None,
    sessions: Sequence[str | None] | None = None,
) -> Predictions:
    """Predictions of clips 0, 1, ... over classes g0, g1, ..."""
    clips, classes = log_probabilities.shape
    return Predictions(
        clip_ids=tuple(map(str, range(clips))),
        classes=tuple(f"g{label}" for label in range(classes)),
        log_probabilities=log_probabilities,
        target=np.asarray(target, dtype=np.int64),
        signers=tuple(signers or [None] * clips),
        sessions=tuple(sessions or [None] * clips),
    )


def random_predictions(
    clips: int,
    classes: int,
    *,
    seed: int = 0,
    present: int | None = None,
    signers: Sequence[str | None] | None = None,
    sessions: Sequence[str | None] | None = None,
) -> Predictions:
    """Guesses better than chance; `present` limits the classes that have clips."""
    generator = np.random.default_rng(seed)
    target = generator.integers(present or classes, size=clips)
    logits = generator.normal(size=(clips, classes))
    logits[np.arange(clips), target] += 1.5
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return predictions_of(log_probabilities, target, signers, sessions)


def content_of(clip: Clip) -> dict[str, object]:
    """Everything a clip holds, its landmarks to the bit, for comparison."""
    return {**vars(clip), "landmarks": clip.landmarks.tobytes()}


def assert_hands_hang_on_their_own_arms(clip: Clip) -> None:
    """Every hand lies at its own wrist, and nearer to it than to the other one."""
    for hand, wrist, other in (
        (skeleton.LEFT_HAND, skeleton.LEFT_WRIST, skeleton.RIGHT_WRIST),
        (skeleton.RIGHT_HAND, skeleton.RIGHT_WRIST, skeleton.LEFT_WRIST),
    ):
        wrists = clip.landmarks[:, [wrist, other]]
        gaps = np.linalg.norm(clip.landmarks[:, hand.start, None] - wrists, axis=-1)
        gaps = gaps[~np.isnan(gaps).any(1)]
        if len(gaps):
            assert gaps[:, 0].mean() < min(0.05, gaps[:, 1].mean())
