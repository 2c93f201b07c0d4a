"""The parts of the model, and the consistency term, beside torch's own: one way there and back.

Six clips of 204 frames and one thread, as a piece of a training batch has. Each round times both
sides in turn; the table has the medians.

Usage: python benchmarks/layers.py [ROUNDS]
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slrctl.core.cmcl import consistency_loss
from slrctl.core.devices import arithmetic, keep_freed_memory
from slrctl.core.model import fast
from slrctl.core.model.attention import MultiHeadAttention
from slrctl.core.model.encoder import FeedForward
from slrctl.core.model.fusion import CrossModalAttentionFusion, StreamPresence, Streams
from slrctl.core.model.residual import residual

CLIPS, FRAMES, HEADS, HIDDEN, RATE = 6, 204, 3, 2048, 0.1
WIDTH, BODY_WIDTH = 42, 24
CPU = torch.device("cpu")
Call = Callable[[Tensor], Tensor]


class TorchFeedForward(nn.Module):
    """The same layer with torch's ReLU and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Linear(WIDTH, HIDDEN)
        self.contract = nn.Linear(HIDDEN, WIDTH)

    def forward(self, features: Tensor) -> Tensor:
        return self.contract(F.dropout(F.relu(self.expand(features)), RATE))


def pairs() -> dict[str, tuple[Call, Call, Tensor]]:
    """Of each part, torch's and ours, and what both are given; dropout is on."""
    torchs, ours = (
        nn.MultiheadAttention(WIDTH, HEADS, RATE, batch_first=True),
        MultiHeadAttention(WIDTH, HEADS, RATE),
    )
    everywhere = torch.ones(CLIPS, FRAMES, dtype=torch.bool)
    norm = nn.LayerNorm(WIDTH)
    frames = torch.randn(CLIPS, FRAMES, WIDTH, requires_grad=True)
    maps = torch.randn(2, CLIPS, HEADS, FRAMES, FRAMES).softmax(-1).requires_grad_()

    fusion = CrossModalAttentionFusion(WIDTH, BODY_WIDTH, HEADS, RATE)
    present = StreamPresence(everywhere, everywhere, everywhere)

    def fused(x: Tensor) -> Tensor:
        streams = Streams(x, x.flip(1), x[..., :BODY_WIDTH])
        return torch.cat(fusion(streams, present, wanted=())[0], dim=-1)

    def plainly_fused(x: Tensor) -> Tensor:
        with fast.plain_path():
            return fused(x)

    def consistency(maps: Tensor) -> Tensor:
        forth, back = maps
        return consistency_loss(forth, back, everywhere, everywhere)

    def plain_consistency(maps: Tensor) -> Tensor:
        with fast.plain_path():
            return consistency(maps)

    return {
        "feed-forward": (TorchFeedForward(), FeedForward(WIDTH, HIDDEN, RATE), frames),
        "attention": (
            lambda x: torchs(x, x, x, need_weights=False)[0],
            lambda x: ours(x, x, everywhere, return_weights=False)[0],
            frames,
        ),
        "residual": (
            lambda x: norm(x + F.dropout(x, RATE)),
            lambda x: residual(x, x, norm, RATE, True),
            frames,
        ),
        "fusion": (plainly_fused, fused, frames),
        "consistency": (plain_consistency, consistency, maps),
    }


def seconds_of(call: Call, given: Tensor, precision: str) -> float:
    """One way there and back."""
    started = time.perf_counter()
    with arithmetic(precision, CPU):
        result = call(given)
    result.sum().backward()
    return time.perf_counter() - started


def main() -> None:
    keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    print("| part | precision | torch's | ours | faster |\n|---|---|---|---|---|")
    for name, (*both, given) in pairs().items():
        for precision in ("fp32", "bf16"):
            times = [[seconds_of(one, given, precision) for one in both] for _ in range(rounds)]
            # The first three also compile, and allocate what the others find.
            torchs, ours = map(statistics.median, zip(*times[3:], strict=True))
            print(
                f"| {name} | {precision} | {1e3 * torchs:.2f} ms | {1e3 * ours:.2f} ms "
                f"| {torchs / ours:.1f} x |"
            )


if __name__ == "__main__":
    main()
