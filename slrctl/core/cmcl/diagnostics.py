"""Numbers that show whether CMCL does anything, and warnings in plain words where it does not."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from slrctl.core.cmcl.consistency import masked_mean
from slrctl.settings import CMCL_TERMS

FEWEST_CLIPS = 8
"""Fewer clips say nothing of the spread of features.

The centred features of two clips always have rank 1. Those with an effective rank of 2.4 over many
clips come out under 1.5 in 44 % of draws of 3 clips, 9 % of 4, 0.4 % of 6, and under 0.1 % of 8.
"""


def gradient_measures(gradients: Mapping[str, Float[Tensor, " N"]]) -> dict[str, float]:
    """Compare the gradients of the terms, each of all parameters of the model in one row.

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
) -> tuple[Float[Tensor, " B"], Bool[Tensor, " B"]]:
    """Attention entropy over that of uniform attention, 0 (one frame) to 1 (uniform).

    Returns:
        The mean over each clip's rows that count, and True for the clips that have such rows. A
        clip with fewer than two keys has no entropy to compare and is left out.
    """
    weights = weights.float()
    entropy = -torch.xlogy(weights, weights).sum(-1).mean(1)  # B T
    num_keys = keys_count.sum(-1)
    rows = rows_count & (num_keys > 1)[:, None]
    uniform = num_keys.clamp(min=2).log()[:, None]
    return masked_mean(entropy / uniform, rows), rows.any(-1)


def feature_variance(embedding: Float[Tensor, "N D"]) -> float | None:
    """Variance over clips, summed over features and divided by the mean squared norm.

    0 where all clips have the same embedding (collapse), up to 1 where they have mean 0; None for
    fewer than `FEWEST_CLIPS`.
    """
    if len(embedding) < FEWEST_CLIPS:
        return None
    power = embedding.square().sum(-1).mean()
    return float(embedding.var(0, correction=0).sum() / power.clamp(min=1e-12))


def effective_rank(embedding: Float[Tensor, "N D"]) -> float | None:
    """Exp of the entropy of the normalised singular values (Roy and Vetterli 2007), 1 to D.

    None for fewer than `FEWEST_CLIPS`.
    """
    if len(embedding) < FEWEST_CLIPS:
        return None
    centred = embedding.double() - embedding.double().mean(0)
    values = torch.linalg.svdvals(centred)
    share = values / values.sum().clamp(min=1e-12)
    return float(torch.exp(-torch.xlogy(share, share).sum()))


EPOCHS_IN_A_ROW = 3
# A gradient under this share of the cross-entropy's steers nothing.
INERT_SHARE = 1e-3
# A term with at least this share of the cross-entropy's gradient can hold it up.
FIGHTING_SHARE, FIGHTING_COSINE = 0.1, -0.5
# Variance over clips as a share of the mean squared norm, and effective rank.
COLLAPSED_VARIANCE, COLLAPSED_RANK = 0.01, 1.5
_OTHER_FORM = {"consistency": "cmcl.consistency=cycle", "alignment": "cmcl.alignment=contrastive"}


def conditions(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Name what is wrong with an epoch, a line of `metrics.jsonl`, with a text for each."""
    found = {}
    own = metrics.get("gradient_norm_classification")
    for term in CMCL_TERMS:
        norm, cosine = (metrics.get(f"gradient_{what}_{term}") for what in ("norm", "cosine"))
        if norm is None or not own:
            continue
        if norm < INERT_SHARE * own:
            form = f" ({_OTHER_FORM[term]})" if term in _OTHER_FORM else ""
            found[f"{term} is inert"] = (
                f"{term} is inert: its gradient is {_percent(norm / own)} of the cross-entropy's; "
                f"raise cmcl.lambda_{term}, or choose a form it cannot satisfy by doing nothing"
                f"{form}"
            )
        if cosine is not None and cosine < FIGHTING_COSINE and norm > FIGHTING_SHARE * own:
            found[f"{term} fights"] = (
                f"{term} fights the cross-entropy: cosine of their gradients {cosine:.2f}, at "
                f"{_percent(norm / own)} of its norm; lower cmcl.lambda_{term}"
            )
    for stream in ("left_hand", "right_hand", "body"):
        variance, rank = (metrics.get(f"val_{what}_{stream}") for what in ("variance", "rank"))
        if variance is None or rank is None:
            continue
        if variance < COLLAPSED_VARIANCE or rank < COLLAPSED_RANK:
            advice = (
                "lower cmcl.lambda_alignment, or set cmcl.alignment=contrastive"
                if metrics.get("lambda_alignment")
                else "lower train.learning_rate, and look at this stream with slrctl data show"
            )
            found[f"{stream} collapses"] = (
                f"the {stream.replace('_', ' ')} features collapse: variance over clips "
                f"{_percent(variance)} of their power, effective rank {rank:.1f}; {advice}"
            )
    return found


def update_streaks(
    streaks: Mapping[str, int], found: Mapping[str, str]
) -> tuple[dict[str, int], list[str]]:
    """Count the epochs in a row that each condition has lasted, this one included.

    Also returned are the texts of those that have just lasted long enough, so each is told once.
    """
    longer = {name: streaks.get(name, 0) + 1 for name in found}
    return longer, [text for name, text in found.items() if longer[name] == EPOCHS_IN_A_ROW]


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
