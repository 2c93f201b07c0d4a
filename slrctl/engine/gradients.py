"""Gradients of the pieces of a batch, added up."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

# What clips ask of the weights that they reach.
Gradients = dict[nn.Parameter, Tensor]


class GradientSums:
    """What pieces ask of the weights, added up; a piece need not reach every weight.

    A gradient need not lie in memory as its weight does, and two weights may share one tensor of
    it; so sums have memory of their own, in the order of what they are made of.
    """

    def __init__(self) -> None:
        self._alone: Gradients = {}
        """Of weights that one piece has reached so far, as it gave them."""
        self._sums: Gradients = {}

    def add(self, gradients: Iterable[tuple[nn.Parameter, Tensor | None]]) -> None:
        """Take in the gradients of a piece."""
        there = {weight: gradient for weight, gradient in gradients if gradient is not None}
        known = [weight for weight in there if weight in self._sums]
        if known:
            own = [self._sums[weight] for weight in known]
            torch._foreach_add_(own, [there[weight] for weight in known])  # pyright: ignore[reportPrivateImportUsage]
        second = [weight for weight in there if weight in self._alone]
        if second:
            first = [self._alone.pop(weight) for weight in second]
            sums = torch._foreach_add(first, [there[weight] for weight in second])  # pyright: ignore[reportPrivateImportUsage]
            self._sums.update(zip(second, sums, strict=True))
        self._alone |= {w: g for w, g in there.items() if w not in self._sums}

    def sums(self) -> Gradients:
        """The sums so far, each in memory of its own."""
        return self._sums | {weight: gradient.clone() for weight, gradient in self._alone.items()}
