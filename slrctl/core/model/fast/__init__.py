"""The fast path of a model on a CPU, behind one door.

Every function here computes what a plain one beside it computes, with the same random draws; the
plain one is the reference, and what other devices run. `applies_to` is the door: on a CPU, in
float32 or under bfloat16 autocast, the fast path is taken, but no kernel in a prediction from so
few frames that loading it would take longer than the rest. Kernels do not look where they write, so
what does not fit together goes the plain way too, where torch broadcasts or refuses it.

What the fast path does differently is to stay in the cache: kernels, compiled by numba, do all that
is to be done to a few rows before the next few come, and large products go through blocks of rows
whose results the kernels still find there.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import wraps
from typing import Any

import torch
from torch import Tensor

# Frames of a batch, or rows of its maps, up to which no kernel is used where no gradient is wanted.
FEW_FRAMES = 512

_is_wanted = ContextVar("is_wanted", default=True)


def applies_to(features: Tensor, *others: Tensor, predicts_with_kernels: bool = True) -> bool:
    """Whether these features, and what is computed with them, take the fast path.

    `predicts_with_kernels` is false of what needs none where no gradient is wanted.
    """
    return (
        _is_wanted.get()
        and (
            torch.is_grad_enabled()
            or not predicts_with_kernels
            or features.shape[:-1].numel() > FEW_FRAMES
        )
        and all(x.device.type == "cpu" and x.dtype == torch.float32 for x in (features, *others))
    )


@contextmanager
def plain_path() -> Iterator[None]:
    """Run the reference inside the block: for tests and benchmarks, which compare the two."""
    token = _is_wanted.set(False)
    try:
        yield
    finally:
        _is_wanted.reset(token)


def backward_pass(backward: Callable[..., Any]) -> Callable[..., Any]:
    """A backward pass that no autocast changes, and that raises where it is to be recorded."""

    @wraps(backward)
    def call(*arguments: Any) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "create_graph=True: the fast path has no second derivative; use fast.plain_path()"
            )
        with without_autocast():
            return backward(*arguments)

    return call


def without_autocast() -> AbstractContextManager[object]:
    """Torch's own autocast off inside the block; it takes no time where it is off already."""
    if torch.is_autocast_enabled("cpu"):
        return torch.autocast("cpu", enabled=False)
    return nullcontext()


def arithmetic_type(features: Tensor) -> torch.dtype:
    """What matrix products are computed in: bfloat16 under such an autocast, else as given."""
    if torch.is_autocast_enabled("cpu") and features.dtype == torch.float32:
        return torch.get_autocast_dtype("cpu")
    return features.dtype
