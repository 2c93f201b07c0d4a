"""Matrix products by whichever library is the faster one for their size.

oneDNN takes the widest registers of every processor that has them; torch's own library does so on
Intel's alone, and where they count computes half as fast, but begins sooner. In bfloat16 both are
oneDNN.
"""

import torch
from jaxtyping import Float
from torch import Tensor

# From so many multiplications on, oneDNN is faster although it takes ten microseconds to begin.
_MANY = 1_500_000


def product(
    left: Float[Tensor, "N D"],
    right: Float[Tensor, "M D"],
    scratch: Float[Tensor, "N M"] | None = None,
) -> Float[Tensor, "N M"]:
    """Every row of one by every row of the other; the result may lie in the scratch."""
    if _is_onednns(left, len(right)):
        return torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")
    return torch.mm(left, right.t(), out=scratch)


def product_over_rows(
    left: Float[Tensor, "N M"], right: Float[Tensor, "N K"]
) -> Float[Tensor, "M K"]:
    """left^T right, which is the gradient of a weight: a sum over all rows.

    In float32 short sums are taken in float64, which costs little there: so it hardly matters in
    which parts a batch is computed, though the optimizer makes large steps of the rounding of small
    gradients.
    """
    if left.dtype == torch.float32 and not _is_onednns(left, right.shape[1]):
        return (left.double().t() @ right.double()).float()
    return product(left.t(), right.t())


def linear(
    rows: Float[Tensor, "N D"], weight: Float[Tensor, "F D"], bias: Float[Tensor, " F"]
) -> Float[Tensor, "N F"]:
    """A linear map of every row."""
    rows = rows.contiguous()  # what lies apart in memory, oneDNN multiplies very slowly
    if _is_onednns(rows, len(weight)):
        return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return torch.addmm(bias, rows, weight.t())


def linear_back(
    gradient: Float[Tensor, "N F"], rows: Float[Tensor, "N D"], weight: Float[Tensor, "F D"]
) -> tuple[Float[Tensor, "N D"], Float[Tensor, "F D"], Float[Tensor, " F"]]:
    """The way back: the gradients of the rows, the weight and the bias."""
    gradient, rows = gradient.contiguous(), rows.contiguous()
    of_weight = product_over_rows(rows, gradient).t()
    return product(gradient, weight.t()), of_weight, gradient.sum(0)


def _is_onednns(left: Float[Tensor, "N D"], num_columns: int) -> bool:
    return (
        left.dtype == torch.float32
        and left.numel() * num_columns >= _MANY
        and torch.backends.mkldnn.is_available()
    )
