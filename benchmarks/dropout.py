"""Time dropout's masks: torch's own against ours, alone and inside a feed-forward layer.

Run as `python benchmarks/dropout.py`. Figures are medians of one run, so only ratios mean anything.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slrctl.core.model.dropout import dropout
from slrctl.core.model.encoder import FeedForward

ROWS, WIDTH, HIDDEN, RATE, REPEATS = 960, 42, 2048, 0.1, 30


class TorchFeedForward(nn.Module):
    """The same layer with torch's ReLU and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Linear(WIDTH, HIDDEN)
        self.contract = nn.Linear(HIDDEN, WIDTH)

    def forward(self, features: Tensor) -> Tensor:
        return self.contract(F.dropout(F.relu(self.expand(features)), RATE))


def median_seconds(call: Callable[[Tensor], Tensor], features: Tensor) -> float:
    """Forward and backward, the first three calls not counted."""
    seconds = []
    for _ in range(REPEATS + 3):
        started = time.perf_counter()
        call(features).sum().backward()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[3:])


def main() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(ROWS, HIDDEN, requires_grad=True)
    frames = torch.randn(1, ROWS, WIDTH, requires_grad=True)
    pairs = {
        "mask alone": (
            median_seconds(lambda x: F.dropout(x, RATE), hidden),
            median_seconds(lambda x: dropout(x, RATE, True), hidden),
        ),
        "feed-forward": (
            median_seconds(TorchFeedForward(), frames),
            median_seconds(FeedForward(WIDTH, HIDDEN, RATE), frames),
        ),
    }
    for name, (torchs, ours) in pairs.items():
        print(
            f"{name:<13} torch {1e3 * torchs:6.2f} ms  ours {1e3 * ours:6.2f} ms  "
            f"ratio {torchs / ours:.2f}"
        )


if __name__ == "__main__":
    main()
