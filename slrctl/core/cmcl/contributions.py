"""Which clips each term is a mean over, in the form the settings name."""

from typing import NamedTuple

from jaxtyping import Bool, Int64
from torch import Tensor

from slrctl.core.clip import ClipBatch
from slrctl.core.cmcl.contrastive import has_negative
from slrctl.core.cmcl.cycle import is_cyclic
from slrctl.settings import CMCLSettings


class Contributions(NamedTuple):
    """How many clips of a batch each term is a mean over."""

    consistency: int
    alignment: int


def consistent_clips(
    left_is_present: Bool[Tensor, "B T"],
    right_is_present: Bool[Tensor, "B T"],
    settings: CMCLSettings,
) -> Bool[Tensor, " B"]:
    """Clips with a frame of each hand; in the cycle form, with several that show both.

    The temporal extension of the cycle form takes in the former as well.
    """
    if settings.consistency == "cycle" and not settings.temporal:
        return is_cyclic(left_is_present, right_is_present)
    return left_is_present.any(-1) & right_is_present.any(-1)


def moving_clips(
    left_is_present: Bool[Tensor, "B T"], right_is_present: Bool[Tensor, "B T"]
) -> Bool[Tensor, " B"]:
    """Clips of the temporal extension: with two successive frames of each hand."""
    left, right = (seen[:, 1:] & seen[:, :-1] for seen in (left_is_present, right_is_present))
    return left.any(-1) & right.any(-1)


def aligned_clips(
    has_left: Bool[Tensor, " B"],
    has_right: Bool[Tensor, " B"],
    target: Int64[Tensor, " B"],
    settings: CMCLSettings,
    *,
    among: tuple[Tensor, ...] | None = None,
) -> Bool[Tensor, " B"]:
    """Clips with a hand; in the contrastive form, with another clip to be told apart from.

    `among` are the masks and targets of the clips they are told apart from, their own if absent.
    """
    if settings.alignment == "cosine":
        return has_left | has_right
    lefts, rights, targets = among or (has_left, has_right, target)
    return has_negative(target, has_left, targets, lefts) | has_negative(
        target, has_right, targets, rights
    )


def contributing_clips(batch: ClipBatch, settings: CMCLSettings) -> Contributions:
    """Count the clips that enter each term of a batch with targets."""
    if batch.target is None:
        raise ValueError("which clips are aligned depends on their glosses; collate with classes")
    left, right = batch.left_is_present, batch.right_is_present
    return Contributions(
        int(consistent_clips(left, right, settings).sum()),
        int(aligned_clips(left.any(-1), right.any(-1), batch.target, settings).sum()),
    )
