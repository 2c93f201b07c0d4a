"""Random numbers that follow from names, so that no draw depends on earlier ones.

Two trainings that differ in one module share every draw of the others: a parameter's initial value
comes from (seed, its name), an augmentation from (seed, epoch, clip id). The numbers of a clip are
the output of a counter-based generator (SplitMix64: Steele, Lea, Flood, OOPSLA 2014), so a whole
batch is drawn at once and a clip draws the same alone.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt64
from torch import Tensor, nn


def stable_seed(*names: object) -> int:
    """Hash names into 63 bits, the same on every machine and in every process."""
    text = "\x1f".join(str(name) for name in names)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator_for(*names: object) -> torch.Generator:
    """Return a CPU generator seeded by these names."""
    return torch.Generator().manual_seed(stable_seed(*names))


_scoped = ContextVar[torch.Generator | None]("scoped", default=None)


@contextmanager
def scoped_seed(seed: int, device: torch.device) -> Iterator[None]:
    """Make the draws on this device inside the block follow from the seed alone.

    On a CPU the draws come from `scoped_generator`, which belongs to this thread and block, so
    that several threads may draw at once. On an accelerator dropout takes no generator, so this is
    the one place that touches torch's global state, which is restored afterwards.
    """
    token = _scoped.set(torch.Generator().manual_seed(seed))
    try:
        if device.type == "cpu":
            yield
        else:
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                torch.manual_seed(seed)
                yield
    finally:
        _scoped.reset(token)


def scoped_generator(device: torch.device) -> torch.Generator | None:
    """Return the generator of the block; None, torch's global one, on accelerators and outside."""
    return _scoped.get() if device.type == "cpu" else None


# Torch's layers draw initial values from the global generator as they are built. `initialise` draws
# ours afterwards; around a constructor this decorator restores the generator.
own_draws = torch.random.fork_rng(devices=[])


def initialise(module: nn.Module, seed: int) -> None:
    """Draw every weight matrix Xavier-uniform from (seed, its name); biases start at 0.

    Weights of recurrent layers and convolutions are uniform within 1 / sqrt(inputs of a unit).
    Removing a module leaves the initial values of all others as they were. Position
    tables and the scales of LayerNorm keep the values their module gave them.
    """
    for module_name, layer in module.named_modules():
        if isinstance(layer, nn.Linear):
            _draw(layer.weight, seed, f"{module_name}.weight")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.GRU | nn.Conv2d):
            fan_in = layer.hidden_size if isinstance(layer, nn.GRU) else layer.weight[0].numel()
            for name, parameter in layer.named_parameters():
                generator = generator_for(seed, "initial value", f"{module_name}.{name}")
                nn.init.uniform_(parameter, -(fan_in**-0.5), fan_in**-0.5, generator=generator)
    for name, parameter in module.named_parameters():
        if name.endswith("class_query"):
            _draw(parameter, seed, name)


def _draw(weight: Tensor, seed: int, name: str) -> None:
    nn.init.xavier_uniform_(weight, generator=generator_for(seed, "initial value", name))


def keys_for(keys: UInt64[np.ndarray, " B"], name: str) -> UInt64[np.ndarray, " B"]:
    """Derive keys for one purpose, so that its draws are unrelated to those of any other."""
    return keys ^ np.uint64(stable_seed(name))


_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def counter_bits(keys: UInt64[np.ndarray, " B"], count: int) -> UInt64[np.ndarray, "B N"]:
    """Draw `count` times 64 bits for each key; draw n of a key is always the same."""
    counters = np.arange(1, count + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is the algorithm
        state = keys[:, None] + counters[None, :] * _STEP
        state = (state ^ (state >> np.uint64(30))) * _MIX_1
        state = (state ^ (state >> np.uint64(27))) * _MIX_2
        return state ^ (state >> np.uint64(31))


def counter_uniform(keys: UInt64[np.ndarray, " B"], count: int) -> Float[np.ndarray, "B N"]:
    """Draw `count` float64 numbers in (0, 1) for each key; number n of a key is always the same."""
    bits = counter_bits(keys, count)
    # 53 bits fill a double; the half keeps 0 out, where a logarithm would follow.
    return ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def counter_events(
    keys: UInt64[np.ndarray, " B"], count: int, probability: float
) -> Bool[np.ndarray, "B N"]:
    """Draw for each key `count` events of this probability, True where one happens.

    Event n of a key is always the same, and happens at every higher probability too.
    """
    bits = counter_bits(keys, -(-count // 2)).astype("<u8", copy=False)
    return bits.view("<u4")[:, :count] < np.uint64(round(probability * 2**32))


_NORMAL_QUANTILES = (
    torch.special.ndtri((torch.arange(2**16, dtype=torch.float64) + 0.5) / 2**16).float().numpy()
)


def counter_normal(keys: UInt64[np.ndarray, " B"], count: int) -> Float32[np.ndarray, "B N"]:
    """Draw `count` standard normal numbers for each key; number n of a key is always the same.

    Each is one of 65,536 equally likely quantiles, up to +-4.33: fine enough for noise, one hash
    gives four of them, and a table returns the same bits whatever the array around it.
    """
    bits = counter_bits(keys, -(-count // 4)).astype("<u8", copy=False)
    return np.take(_NORMAL_QUANTILES, bits.view("<u2")[:, :count])
