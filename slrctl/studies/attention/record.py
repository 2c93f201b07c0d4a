"""Inspected clips: their attention maps, gates and predictions; and the choice of clips."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32

from slrctl.core.clip import Clip
from slrctl.core.data.dataset import SignDataset, rows_where
from slrctl.core.skeleton import LEFT_HAND, RIGHT_HAND
from slrctl.errors import UsageError, quote, some_of
from slrctl.evaluation.predictions import Predictions
from slrctl.settings import MODELS_WITH_STREAMS, ModelSettings

FUSION = "fusion"
"""Name of the layer with the six maps between the streams."""
STREAM_OF = {"left": "left_hand", "right": "right_hand", "body": "body"}
"""Streams by their names in those of the maps, such as `left_to_right`."""
STREAMS = tuple(STREAM_OF.values())
"""Streams in the order of the rows and columns of an exchange table."""


class AttentionMap(NamedTuple):
    """One map of one clip: row i spreads frame i of the reader over the frames it reads.

    Reader and read are streams, `clip` for all streams together, or `class_query`, whose map has
    one row. Rows that do not count (the reader is missing there) are drawn but enter no mean; keys
    that do not count have weight 0.
    """

    name: str
    reader: str
    read: str
    weights: Float32[np.ndarray, "H Q T"]
    rows_count: Bool[np.ndarray, " Q"]
    keys_count: Bool[np.ndarray, " T"]

    @property
    def mean(self) -> Float32[np.ndarray, "Q T"]:
        return self.weights.mean(axis=0)


@dataclass(frozen=True, eq=False)
class InspectedClip:
    """A clip with its prediction and the maps of some layers.

    `clip` has the frames the model saw, in the coordinates of the image; mirrored or rectified
    where the run's settings ask for it. `gates` and `norms` are None in a model without fusion;
    columns of `norms` are own features and gated messages in the order of the streams, the stream's
    own at its own place. `misplaced` is the largest share of its attention that any row of fusion
    spends on missing or padded frames: 0.
    """

    clip: Clip
    classes: tuple[str, ...]
    logits: Float32[np.ndarray, " K"]
    is_present: dict[str, Bool[np.ndarray, " T"]]
    layers: dict[str, tuple[AttentionMap, ...]]
    gates: dict[str, Float32[np.ndarray, "T D"]] | None
    norms: dict[str, Float32[np.ndarray, "T 3"]] | None
    misplaced: float

    @cached_property
    def probabilities(self) -> Float[np.ndarray, " K"]:
        shifted = np.exp(self.logits.astype(np.float64) - self.logits.max())
        return shifted / shifted.sum()

    @property
    def predicted(self) -> str:
        return self.classes[int(self.logits.argmax())]

    @property
    def is_right(self) -> bool:
        return self.predicted == self.clip.gloss

    @property
    def confidence(self) -> float:
        """Probability of the predicted gloss."""
        return float(self.probabilities.max())

    @property
    def probability_of_truth(self) -> float:
        return float(self.probabilities[self.classes.index(self.clip.gloss)])

    def prediction_json(self) -> dict[str, Any]:
        return {
            "gloss": self.predicted,
            "probability": self.confidence,
            "probability_of_truth": self.probability_of_truth,
            "is_right": self.is_right,
        }

    @property
    def fusion(self) -> dict[str, AttentionMap]:
        """The six directed maps by name; empty where there are none."""
        return {found.name: found for found in self.layers.get(FUSION, ())}

    def with_layers(self, names: Collection[str]) -> "InspectedClip":
        kept = {name: maps for name, maps in self.layers.items() if name in names}
        return replace(self, layers=kept)


def layer_names(settings: ModelSettings) -> tuple[str, ...]:
    """List the layers of a model that have maps, the one shown by default first."""
    num_encoders, num_decoders = {
        "streamformer": (0, 1),
        "gru": (0, 1),
        "conv": (2, 1),
    }.get(settings.name, (settings.num_encoder_layers, settings.num_decoder_layers))
    encoders = [f"encoder-{number + 1}" for number in range(num_encoders)]
    decoders = [f"decoder-{number + 1}" for number in range(num_decoders)]
    if settings.name in MODELS_WITH_STREAMS and settings.cross_attention:
        return (FUSION, *encoders, *decoders)
    return (*reversed(decoders), *encoders)


def clip_named(dataset: SignDataset, clip_id: str) -> Clip:
    """Return the clip with this id.

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
    """Return the clips that show a gloss.

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
    """Return the clip with most frames in which both hands are detected; the first of equals."""

    def num_frames_with_both(clip: Clip) -> int:
        detected = np.asarray(np.isfinite(clip.landmarks).all(axis=-1))
        return int((detected[:, LEFT_HAND].any(-1) & detected[:, RIGHT_HAND].any(-1)).sum())

    return max(clips, key=num_frames_with_both)


def worst_clips(predictions: Predictions, count: int) -> list[str]:
    """Return the ids of the clips whose true gloss is least probable, the worst first."""
    order = np.argsort(predictions.log_probability_of_truth, kind="stable")
    return [predictions.clip_ids[row] for row in order[:count].tolist()]
