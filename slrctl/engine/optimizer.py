"""AdamW over the weights of a training (Loshchilov and Hutter 2019, arXiv 1711.05101).

The update is torch's own, called as a function: its Optimizer class loads torch's compiler, which
takes a second and 70 MB and compiles nothing here.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim.adamw import adamw

from slrctl.engine.threads import map_on, one_thread

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
    def gradient_norm(self) -> float:
        """The length of the gradient of all weights in one row, whatever the number of threads."""
        with one_thread():
            return float(get_total_norm([w.grad for w in self.weights if w.grad is not None]))

    def step(self, rate: float, norm: float, largest_norm: float = math.inf) -> None:
        """Change every weight that has a gradient, in place, and shorten gradients before.

        Args:
            rate: the learning rate.
            norm: `gradient_norm`.
            largest_norm: to which a longer gradient is scaled down.
        """
        reached = [weight for weight in self.weights if weight.grad is not None]
        for weight in reached:
            if weight not in self.moments:
                self.moments[weight] = _no_moments(weight)

        @torch.no_grad()
        def update(share: Sequence[nn.Parameter]) -> None:
            if norm + 1e-6 > largest_norm:  # which torch adds too
                clip_grads_with_norm_(share, largest_norm, torch.tensor(norm))
            moments = [self.moments[weight] for weight in share]
            adamw(
                [*share],
                # The update goes through memory as the weight lies, whatever the strides.
                [weight.grad.contiguous() for weight in share if weight.grad is not None],
                [own["exp_avg"] for own in moments],
                [own["exp_avg_sq"] for own in moments],
                [],
                [own["step"] for own in moments],
                fused=_is_fused(share[0].device),
                amsgrad=False,
                beta1=_BETAS[0],
                beta2=_BETAS[1],
                lr=rate,
                weight_decay=self.weight_decay,
                eps=_EPSILON,
                maximize=False,
            )

        if reached:
            for _ in map_on(reached[0].device, update, _shares(reached)):
                pass

    def put_back(self, weight: nn.Parameter, key: str, value: Tensor) -> None:
        """Restore a moment that was saved of this weight."""
        is_number_of_updates = key == "step" and not _is_fused(weight.device)
        place = value if is_number_of_updates else value.to(weight.device)
        self.moments.setdefault(weight, {})[key] = place.clone()


def _shares(weights: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """About as many elements for each thread of a CPU; the weights of a model come in kinds."""
    is_shared_out = weights[0].device.type == "cpu"
    num_shares = min(torch.get_num_threads(), len(weights)) if is_shared_out else 1
    by_size = sorted(weights, key=lambda weight: -weight.numel())
    return [by_size[first::num_shares] for first in range(num_shares)]


def _is_fused(device: torch.device) -> bool:
    """Whether torch has one operation for the update there."""
    return device.type in ("cpu", "cuda")


def _no_moments(weight: nn.Parameter) -> dict[str, Tensor]:
    # The fused update wants the number of updates where the weights are.
    place = weight.device if _is_fused(weight.device) else torch.device("cpu")
    return {
        "step": torch.zeros((), dtype=torch.float32, device=place),
        "exp_avg": torch.zeros_like(weight, memory_format=torch.preserve_format),
        "exp_avg_sq": torch.zeros_like(weight, memory_format=torch.preserve_format),
    }
