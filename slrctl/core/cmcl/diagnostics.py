"""Numbers that show whether CMCL does anything: entropy, spread of features, who contributes."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from slrctl.core.cmcl.loss import LossTerms

FEWEST_CLIPS = 8
"""Fewer clips say nothing of the spread of features.

The centred features of two clips always have rank 1. Those with an effective rank of 2.4 over many
clips come out under 1.5 in 44 % of draws of 3 clips, 9 % of 4, 0.4 % of 6, and under 0.1 % of 8.
"""


def term_gradients(
    terms: LossTerms, parameters: Sequence[nn.Parameter]
) -> dict[str, list[Tensor | None]]:
    """What each term that was computed asks of each weight, its lambda included.

    None where a term does not reach a weight: most of the memory that zeros would take.
    """
    gradients = {"classification": _gradients(terms.classification, parameters)}
    for name in ("consistency", "alignment"):
        term: Tensor | None = getattr(terms, name)
        if term is not None:
            lambda_ = getattr(terms, f"lambda_{name}")
            of_term = _gradients(term, parameters)
            gradients[name] = [None if g is None else lambda_ * g for g in of_term]
    return gradients


def _gradients(term: Float[Tensor, ""], parameters: Sequence[nn.Parameter]) -> list[Tensor | None]:
    return list(torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True))


def in_one_row(
    gradients: Iterable[Tensor | None], parameters: Iterable[nn.Parameter]
) -> Float[Tensor, " N"]:
    """The gradients of all weights behind one another; 0 for a weight that was not reached."""
    return torch.cat(
        [
            torch.zeros_like(parameter).flatten() if gradient is None else gradient.flatten()
            for parameter, gradient in zip(parameters, gradients, strict=True)
        ]
    )


def gradient_measures(gradients: Mapping[str, Float[Tensor, " N"]]) -> dict[str, float]:
    """Compare what the terms ask of all weights, of a whole batch, `in_one_row` each.

    Returns:
        `gradient_norm_<term>` for every term that was computed, and `gradient_cosine_<term>` with
        the gradient of the cross-entropy: below 0 the two fight. A zero gradient has cosine 0.
    """
    own = gradients["classification"]
    measures = {f"gradient_norm_{name}": float(g.norm()) for name, g in gradients.items()}
    for name, gradient in gradients.items():
        if name != "classification":
            cosine = F.cosine_similarity(gradient, own, dim=0)
            measures[f"gradient_cosine_{name}"] = float(cosine)
    return measures


def entropy_ratio(
    weights: Float[Tensor, "B H T T"],
    rows_count: Bool[Tensor, "B T"],
    keys_count: Bool[Tensor, "B T"],
) -> tuple[float, int]:
    """Attention entropy over that of uniform attention, 0 (one frame) to 1 (uniform).

    Returns:
        The mean over the clips' rows that count, and the number of clips in it. A clip with fewer
        than two keys has no entropy to compare and is left out.
    """
    weights = weights.float()
    entropy = -torch.xlogy(weights, weights).sum(-1).mean(1)  # B T
    num_keys = keys_count.sum(-1)
    rows = rows_count & (num_keys > 1)[:, None]
    uniform = num_keys.clamp(min=2).log()[:, None]
    per_clip = ((entropy / uniform) * rows).sum(-1) / rows.sum(-1).clamp(min=1)
    is_counted = rows.any(-1)
    num_clips = int(is_counted.sum())
    return float(per_clip[is_counted].sum()) / max(num_clips, 1), num_clips


def feature_variance(embedding: Float[Tensor, "N D"]) -> float | None:
    """Variance over clips, summed over features and divided by the mean squared norm.

    0 where all clips have the same embedding (collapse), up to 1 where they have mean 0; None of
    fewer than `FEWEST_CLIPS`.
    """
    if len(embedding) < FEWEST_CLIPS:
        return None
    power = embedding.square().sum(-1).mean()
    return float(embedding.var(0, correction=0).sum() / power.clamp(min=1e-12))


def effective_rank(embedding: Float[Tensor, "N D"]) -> float | None:
    """Exp of the entropy of the normalised singular values (Roy and Vetterli 2007), 1 to D.

    None of fewer than `FEWEST_CLIPS`.
    """
    if len(embedding) < FEWEST_CLIPS:
        return None
    centred = embedding.double() - embedding.double().mean(0)
    values = torch.linalg.svdvals(centred)
    share = values / values.sum().clamp(min=1e-12)
    return float(torch.exp(-torch.xlogy(share, share).sum()))
