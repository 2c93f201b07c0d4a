"""The contrastive form of alignment: streams of one clip closer than those of other signs."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F


def contrastive_loss(
    left_hand: Float[Tensor, "B D"],
    right_hand: Float[Tensor, "B D"],
    body: Float[Tensor, "B D"],
    target: Int64[Tensor, " B"],
    left_is_present: Bool[Tensor, " B"] | None = None,
    right_is_present: Bool[Tensor, " B"] | None = None,
    *,
    temperature: float = 0.1,
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE of the three pairs of streams (SPEC section 5), in nats.

    For each pair the two streams of a clip are each other's positive; streams of clips of another
    gloss are negatives, those of the same gloss are neither (van den Oord et al. 2018, eq. 4, both
    ways as in Radford et al. 2021). Constant embeddings cost log(1 + negatives): unlike the mean
    cosine, this form is not satisfied by a collapse.

    Args:
        left_hand: embeddings in a width common to the three streams.
        right_hand: the same.
        body: the same.
        target: the label of each clip.
        left_is_present: whether the clip shows that hand at all; every clip does if absent.
        right_is_present: the same.
        temperature: cosines are divided by it.

    Returns:
        The mean over contributing clips of the mean over their pairs. A pair counts for a clip if
        both its streams are there and another clip gives a negative; without any, exactly 0 with
        a working backward.

    Raises:
        ValueError: the temperature is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature ({temperature}) must be above 0")
    everywhere = torch.ones(len(body), dtype=torch.bool, device=body.device)
    has_left = everywhere if left_is_present is None else left_is_present
    has_right = everywhere if right_is_present is None else right_is_present
    left_hand, right_hand, body = (
        F.normalize(embedding.to(torch.promote_types(embedding.dtype, torch.float32)), dim=-1)
        for embedding in (left_hand, right_hand, body)
    )
    is_other_sign = target[:, None] != target
    terms = [
        _pair(left_hand, right_hand, has_left & has_right, is_other_sign, temperature),
        _pair(left_hand, body, has_left, is_other_sign, temperature),
        _pair(right_hand, body, has_right, is_other_sign, temperature),
    ]
    losses = torch.stack([loss for loss, _ in terms])
    counts = torch.stack([is_counted for _, is_counted in terms])
    per_clip = losses.sum(0) / counts.sum(0).clamp(min=1)
    return per_clip.sum() / counts.any(0).sum().clamp(min=1)


def has_negative(
    target: Int64[Tensor, " B"],
    is_there: Bool[Tensor, " B"],
    others: Int64[Tensor, " N"],
    others_are_there: Bool[Tensor, " N"],
) -> Bool[Tensor, " B"]:
    """Whether a clip is there, and among others that are there is one that shows another sign."""
    return ((target[:, None] != others) & others_are_there).any(-1) & is_there


def _pair(
    one: Float[Tensor, "B D"],
    other: Float[Tensor, "B D"],
    is_there: Bool[Tensor, " B"],
    is_other_sign: Bool[Tensor, "B B"],
    temperature: float,
) -> tuple[Float[Tensor, " B"], Bool[Tensor, " B"]]:
    """Each clip's term, 0 where it does not count, and whether it counts."""
    is_negative = is_other_sign & is_there & is_there[:, None]
    is_counted = is_negative.any(-1)
    is_compared = is_negative | torch.eye(len(one), dtype=torch.bool, device=one.device)
    similarity = one @ other.mT / temperature
    # A finite floor, for -inf would give NaN gradients in a row without a negative.
    floor = torch.finfo(similarity.dtype).min / 4
    forth = similarity.masked_fill(~is_compared, floor).log_softmax(-1).diagonal()
    back = similarity.mT.masked_fill(~is_compared, floor).log_softmax(-1).diagonal()
    return torch.where(is_counted, -(forth + back) / 2, 0.0), is_counted
