"""AdamW over the weights of a training (Loshchilov and Hutter 2019, arXiv 1711.05101).

The update is torch's own, called as a function: its Optimizer class loads torch's compiler, which
takes a second and 70 MB and compiles nothing here.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


class AdamW:
    """Weights, and for each one that had a gradient the moments of its gradients so far.

    `moments` has under each weight `exp_avg` and `exp_avg_sq`, of the weight's shape, and `step`,
    the number of updates.
    """

    def __init__(self, weights: Iterable[nn.Parameter], weight_decay: float) -> None:
        self.weights = list(weights)
        self.moments: dict[nn.Parameter, dict[str, Tensor]] = {}
        self.weight_decay = weight_decay

    def forget_gradients(self) -> None:
        for weight in self.weights:
            weight.grad = None

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Change every weight that has a gradient, in place."""
        reached = [weight for weight in self.weights if weight.grad is not None]
        for weight in reached:
            if weight not in self.moments:
                self.moments[weight] = _no_moments(weight)
        moments = [self.moments[weight] for weight in reached]
        adamw(
            [*reached],
            [weight.grad for weight in reached if weight.grad is not None],
            [own["exp_avg"] for own in moments],
            [own["exp_avg_sq"] for own in moments],
            [],
            [own["step"] for own in moments],
            fused=bool(reached) and is_fused(reached[0].device),
            amsgrad=False,
            beta1=_BETAS[0],
            beta2=_BETAS[1],
            lr=rate,
            weight_decay=self.weight_decay,
            eps=_EPSILON,
            maximize=False,
        )

    def put_back(self, weight: nn.Parameter, key: str, value: Tensor) -> None:
        """Restore a moment that was saved of this weight."""
        is_number_of_updates = key == "step" and not is_fused(weight.device)
        place = value if is_number_of_updates else value.to(weight.device)
        self.moments.setdefault(weight, {})[key] = place.clone()


def is_fused(device: torch.device) -> bool:
    """Whether torch has one operation for the update there."""
    return device.type in ("cpu", "cuda")


def _no_moments(weight: nn.Parameter) -> dict[str, Tensor]:
    # The fused update wants the number of updates where the weights are.
    place = weight.device if is_fused(weight.device) else torch.device("cpu")
    return {
        "step": torch.zeros((), dtype=torch.float32, device=place),
        "exp_avg": torch.zeros_like(weight, memory_format=torch.preserve_format),
        "exp_avg_sq": torch.zeros_like(weight, memory_format=torch.preserve_format),
    }
