"""Random numbers of the demo set: by name, and alike on every machine.

Only integer arithmetic and exact scaling: no library function whose last bit could differ.
"""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, UInt64

from slrctl.core.seeding import counter_uniform, stable_seed


def keys_for(names: Iterable[tuple[object, ...]]) -> UInt64[np.ndarray, " B"]:
    """The key of each name, for the two functions below."""
    return np.array([stable_seed(*name) for name in names], np.uint64)


def bell(keys: UInt64[np.ndarray, " B"], count: int) -> Float[np.ndarray, "B N"]:
    """Draw `count` numbers a key with mean 0 and variance 1, nearly normal, within +-3.

    The sum of three uniform numbers (Irwin-Hall), cut out of the 48 upper bits of one draw.
    """
    bits = (counter_uniform(keys, count) * 2.0**48).astype(np.int64)
    total = (bits >> 32) + ((bits >> 16) & 0xFFFF) + (bits & 0xFFFF)
    return (total - 1.5 * 0xFFFF) / (0.5 * 0x10000)
