"""Choose the clips to look at."""

from collections.abc import Sequence

import numpy as np

from slrctl.core.clip import Clip
from slrctl.core.data.dataset import SignDataset, rows_where
from slrctl.core.data.formats.reading import quote, some_of
from slrctl.core.skeleton import LEFT_HAND, RIGHT_HAND
from slrctl.engine.predictions import Predictions
from slrctl.errors import UsageError


def clip_named(dataset: SignDataset, clip_id: str) -> Clip:
    """The clip with this id.

    Raises:
        UsageError: there is none.
    """
    for clip in dataset:
        if clip.clip_id == clip_id:
            return clip
    raise UsageError(
        f"--clip {quote(clip_id)}: not among the {len(dataset)} clips of {dataset.name}, which are "
        f"called {some_of([clip.clip_id for clip in dataset], 3)}"
    )


def clips_of_gloss(dataset: SignDataset, gloss: str) -> SignDataset:
    """The clips that show a gloss.

    Raises:
        UsageError: none does.
    """
    shown = rows_where(dataset, lambda clip: clip.gloss == gloss)
    if not len(shown):
        glosses = list(dict.fromkeys(clip.gloss for clip in dataset))
        raise UsageError(
            f"--gloss {quote(gloss)}: no clip of {dataset.name} shows it; it has {some_of(glosses)}"
        )
    return dataset.select(shown)


def most_two_handed(clips: Sequence[Clip]) -> Clip:
    """The clip with most frames in which both hands are detected; the first of equals."""
    return max(clips, key=_frames_with_both_hands)


def _frames_with_both_hands(clip: Clip) -> int:
    detected = np.asarray(np.isfinite(clip.landmarks).all(axis=-1))
    return int((detected[:, LEFT_HAND].any(-1) & detected[:, RIGHT_HAND].any(-1)).sum())


def worst_clips(predictions: Predictions, count: int) -> list[str]:
    """The ids of the clips whose true gloss the model finds least probable, the worst first."""
    order = np.argsort(predictions.log_probability_of_truth, kind="stable")
    return [predictions.clip_ids[row] for row in order[:count].tolist()]
