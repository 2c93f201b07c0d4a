"""Say in plain words when a term does nothing, features collapse, or terms fight."""

from collections.abc import Mapping
from typing import Any

EPOCHS_IN_A_ROW = 3
# A gradient under this share of the cross-entropy's steers nothing.
INERT_SHARE = 1e-3
# A term with at least this share of the cross-entropy's gradient can hold it up.
FIGHTING_SHARE = 0.1
FIGHTING_COSINE = -0.5
# Variance over clips as a share of the mean squared norm, and effective rank.
COLLAPSED_VARIANCE = 0.01
COLLAPSED_RANK = 1.5


def conditions(metrics: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with one epoch: a name for each condition, and what to tell the user.

    Args:
        metrics: a line of `metrics.jsonl`.
    """
    found = {}
    own = metrics.get("gradient_norm_classification")
    for term in ("consistency", "alignment"):
        norm, cosine = (metrics.get(f"gradient_{what}_{term}") for what in ("norm", "cosine"))
        if norm is None or not own:
            continue
        if norm < INERT_SHARE * own:
            found[f"{term} is inert"] = (
                f"{term} is inert: its gradient is {_percent(norm / own)} of the cross-entropy's; "
                f"raise cmcl.lambda_{term}, or choose a form it cannot satisfy by doing nothing "
                f"({_other_form(term)})"
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
            found[f"{stream} collapses"] = (
                f"the {stream.replace('_', ' ')} features collapse: variance over clips "
                f"{_percent(variance)} of their power, effective rank {rank:.1f}; "
                f"{_against_collapse(metrics)}"
            )
    return found


class Streaks:
    """How many epochs in a row each condition has lasted; it is told of once, at the third."""

    def __init__(self, lengths: Mapping[str, int]) -> None:
        self.lengths = dict(lengths)

    def take_in(self, found: Mapping[str, str]) -> list[str]:
        """Count an epoch, and return the texts of the conditions that have just lasted enough."""
        self.lengths = {name: self.lengths.get(name, 0) + 1 for name in found}
        return [text for name, text in found.items() if self.lengths[name] == EPOCHS_IN_A_ROW]


def _against_collapse(metrics: Mapping[str, Any]) -> str:
    if metrics.get("lambda_alignment"):
        return "lower cmcl.lambda_alignment, or set cmcl.alignment=contrastive"
    return "lower train.learning_rate, and look at these parts of the clips with slrctl data show"


def _other_form(term: str) -> str:
    return "cmcl.consistency=cycle" if term == "consistency" else "cmcl.alignment=contrastive"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
