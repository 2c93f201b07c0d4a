"""Gradients of the pieces of a batch, added up."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

# What clips ask of the weights that they reach.
Gradients = dict[nn.Parameter, Tensor]


def add_to(sums: Gradients, gradients: Iterable[tuple[nn.Parameter, Tensor | None]]) -> None:
    """Add what a piece asks of the weights, none of which it may reach.

    A gradient need not lie in memory as its weight does, and two weights may share one tensor of
    it; so sums have memory of their own, in the order of what they are made of.
    """
    there = {weight: gradient for weight, gradient in gradients if gradient is not None}
    known = [weight for weight in there if weight in sums]
    if known:
        own = [sums[weight] for weight in known]
        torch._foreach_add_(own, [there[weight] for weight in known])  # pyright: ignore[reportPrivateImportUsage]
    sums.update((weight, there[weight].clone()) for weight in there if weight not in sums)
