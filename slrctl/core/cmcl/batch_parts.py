"""A batch in parts: what each part counts for, so that the parts add up to the loss of the whole.

Every term of the loss is a mean over the clips that contribute to it, and their number differs from
part to part. A part's mean therefore weighs as much as its contributing clips among all.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from torch import Tensor

from slrctl.core.clip import ClipBatch
from slrctl.core.cmcl.contributions import (
    aligned_clips,
    consistent_clips,
    contributing_clips,
    moving_clips,
)
from slrctl.settings import CMCLSettings

Gather = Callable[[Tensor], Tensor]
"""Rows of a tensor, to those of all workers; gradients find their way back."""


def own_rows(rows: Tensor) -> Tensor:
    """What a worker gathers that is alone."""
    return rows


class TermWeights(NamedTuple):
    """What the mean over a part's clips counts for in the mean over the whole batch's."""

    classification: float = 1.0
    consistency: float = 1.0
    temporal: float = 1.0
    alignment: float = 1.0


WHOLE = TermWeights()


class ClipCounts(NamedTuple):
    """How many clips of a part each mean of the loss is over, and how many show consistency.

    `consistency` is the number for the form that compares the maps, `consistent` that of clips
    with either that or the temporal extension, by which an epoch's mean is weighed.
    """

    clips: int
    consistency: int
    temporal: int
    alignment: int
    consistent: int

    @classmethod
    def of(
        cls, batch: ClipBatch, settings: CMCLSettings, gather: Gather = own_rows
    ) -> "ClipCounts":
        """Count the clips of a part; in the contrastive form clips of other workers matter.

        A stand-in, which has no id, counts for nothing.
        """
        if batch.target is None:
            raise ValueError("the loss needs targets; collate the clips with their classes")
        left, right = batch.left_is_present, batch.right_is_present
        form = settings.model_copy(update={"temporal": False})
        masks = left.any(-1), right.any(-1), batch.target
        among = tuple(map(gather, masks)) if settings.alignment == "contrastive" else masks
        return cls(
            len(batch.clip_ids),
            int(consistent_clips(left, right, form).sum()),
            int(moving_clips(left, right).sum()) if settings.temporal else 0,
            int(aligned_clips(*masks, settings, among=among).sum()),
            contributing_clips(batch, settings).consistency,
        )

    @classmethod
    def total(cls, parts: "Iterable[ClipCounts]") -> "ClipCounts":
        return cls(*map(sum, zip(*parts, strict=True)))

    def weights_in(
        self, whole: "ClipCounts", settings: CMCLSettings, *, num_workers: int = 1
    ) -> TermWeights:
        """Weights under which the parts' terms, added up in each worker, average to the whole's.

        In the contrastive form each worker compares the clips of all, so its term is the whole's.
        """

        def weight(own: int, all_of_them: int) -> float:
            return own * num_workers / max(all_of_them, 1)

        is_contrastive = settings.alignment == "contrastive"
        return TermWeights(
            weight(self.clips, whole.clips),
            weight(self.consistency, whole.consistency),
            weight(self.temporal, whole.temporal),
            1.0 if is_contrastive else weight(self.alignment, whole.alignment),
        )
