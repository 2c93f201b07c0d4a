"""The consistency term's comparison of two maps of attention, as one function."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slrctl.core.model.fast import backward_pass

_NOT_WANTED = np.empty((0, 0, 0), np.float32)


def kl_of_rows(
    forth: Float[Tensor, "B H T S"],
    back: Float[Tensor, "B H S T"],
    is_there: Bool[Tensor, "B S"],
    floor: float,
    temperature: float,
) -> Float[Tensor, "B T"]:
    """KL of each row of one map to the same column of the other, in nats (`core.cmcl.consistency`).

    Both are averaged over heads, kept above the floor, softened by the temperature and made to sum
    to 1 over the frames that are there. A clip without one has 0.
    """
    inputs = forth, back, is_there.contiguous(), floor, 1 / temperature
    if torch.is_grad_enabled():
        return _Divergence.apply(*inputs)  # pyright: ignore[reportReturnType]
    return _Divergence.forward(None, *inputs)


class _Divergence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        forth: Float[Tensor, "B H T S"],
        back: Float[Tensor, "B H S T"],
        is_there: Bool[Tensor, "B S"],
        floor: float,
        exponent: float,
    ) -> Float[Tensor, "B T"]:
        from slrctl.core.model.fast.kernels.divergence import compare_rows

        num_clips, _, num_rows, num_columns = forth.shape
        divergences = forth.new_empty(num_clips, num_rows)
        of_forth = of_back = None
        if ctx is not None:
            of_forth = forth.new_empty(num_clips, num_rows, num_columns)
            of_back = forth.new_empty(num_clips, num_columns, num_rows)
            ctx.save_for_backward(of_forth, of_back)
            ctx.num_heads = forth.shape[1]
        compare_rows(
            forth.detach().contiguous().numpy(),
            back.detach().contiguous().numpy(),
            is_there.numpy(),
            floor,
            exponent,
            divergences.numpy(),
            _NOT_WANTED if of_forth is None else of_forth.numpy(),
            _NOT_WANTED if of_back is None else of_back.numpy(),
        )
        return divergences

    @staticmethod
    @backward_pass
    def backward(ctx: Any, *gradients: Float[Tensor, "B T"]) -> tuple[Tensor | None, ...]:
        of_forth, of_back = ctx.saved_tensors
        of_forth = of_forth * gradients[0][:, :, None]
        of_back = of_back * gradients[0][:, None, :]
        # The same for every head, in the memory of one.
        of_maps = (x[:, None].expand(-1, ctx.num_heads, -1, -1) for x in (of_forth, of_back))
        return (*of_maps, None, None, None)
