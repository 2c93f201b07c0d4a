"""A residual connection after which features are normalised."""

from jaxtyping import Float
from torch import Tensor, nn

from slrctl.core.model import fast
from slrctl.core.model.dropout import dropout
from slrctl.core.model.fast.residual import add_and_normalise


def residual(
    features: Float[Tensor, "B T D"],
    change: Float[Tensor, "B T D"],
    norm: nn.LayerNorm,
    rate: float,
    is_training: bool,
) -> Float[Tensor, "B T D"]:
    """Add a change, in training without the share that dropout takes, and normalise the sum."""
    if fast.applies_to(features) and change.shape == features.shape:
        return add_and_normalise(features, change, norm, rate if is_training else 0.0)
    return norm(features + dropout(change, rate, is_training))
