"""Initial values that belong to a weight's name, so that variants of a model pair."""

import torch
from torch import Tensor, nn

from slrctl.core.seeding import generator_for

# torch's layers draw initial values as they are built, from the global generator. We draw ours
# afterwards; around a constructor this puts the generator back to where it was.
own_draws = torch.random.fork_rng(devices=[])


def initialise(module: nn.Module, seed: int) -> None:
    """Draw every weight matrix Xavier-uniform from (seed, its name); biases start at 0.

    Removing a part of a model leaves the initial values of all others as they were. Position
    tables and the scales of LayerNorm keep what their module gave them.
    """
    for module_name, part in module.named_modules():
        if isinstance(part, nn.Linear):
            _draw(part.weight, seed, f"{module_name}.weight")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    for name, parameter in module.named_parameters():
        if name.endswith("class_query"):
            _draw(parameter, seed, name)


def _draw(weight: Tensor, seed: int, name: str) -> None:
    nn.init.xavier_uniform_(weight, generator=generator_for(seed, "initial value", name))
