"""The alignment term: the three streams of a clip should point the same way."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F


def alignment_loss(
    left_hand: Float[Tensor, "B D"],
    right_hand: Float[Tensor, "B D"],
    body: Float[Tensor, "B D"],
    left_is_present: Bool[Tensor, " B"] | None = None,
    right_is_present: Bool[Tensor, " B"] | None = None,
) -> Float[Tensor, ""]:
    """-mean( cos(f_l, f_r), cos(f_l, f_b), cos(f_r, f_b) ) of SPEC section 5, in [-1, 1].

    A pair with an absent hand is left out of its clip's mean; a clip without any hand contributes
    nothing. Without a contributing clip the result is exactly 0 with a working backward.

    Args:
        left_hand: embeddings in a width common to the three streams.
        right_hand: the same.
        body: the same.
        left_is_present: whether the clip shows that hand at all; every clip does if absent.
        right_is_present: the same.
    """
    everywhere = torch.ones(len(body), dtype=torch.bool, device=body.device)
    has_left = everywhere if left_is_present is None else left_is_present
    has_right = everywhere if right_is_present is None else right_is_present
    left_hand, right_hand, body = (
        embedding.to(torch.promote_types(embedding.dtype, torch.float32))
        for embedding in (left_hand, right_hand, body)
    )
    cosines = torch.stack(
        [
            F.cosine_similarity(left_hand, right_hand, dim=-1),
            F.cosine_similarity(left_hand, body, dim=-1),
            F.cosine_similarity(right_hand, body, dim=-1),
        ]
    )
    pairs = torch.stack([has_left & has_right, has_left, has_right])
    per_clip = torch.where(pairs, cosines, 0.0).sum(0) / pairs.sum(0).clamp(min=1)
    return -per_clip.sum() / pairs.any(0).sum().clamp(min=1)


def mean_over_frames(
    features: Float[Tensor, "B T D"], is_present: Bool[Tensor, "B T"]
) -> Float[Tensor, "B D"]:
    """Average the present frames of each clip; 0 where there is none."""
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    kept = torch.where(is_present[..., None], features, 0.0)
    return kept.sum(1) / is_present.sum(1, keepdim=True).clamp(min=1)
