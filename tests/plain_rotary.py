"""Rotary attention one number at a time, to hold the fast one against."""

import cmath
import math

import torch
from torch import Tensor


def turned_pairs(features: Tensor, time: int) -> list[complex]:
    """Normalised features as complex numbers, each turned by the time over its wavelength."""
    values = features.tolist()
    norm, num_pairs = math.hypot(*values), len(values) // 2
    return [
        complex(values[2 * pair], values[2 * pair + 1])
        / norm
        * cmath.exp(1j * time * 1000 ** -(pair / num_pairs))
        for pair in range(num_pairs)
    ]


def plain_weights(query: Tensor, key: Tensor, log_scale: Tensor, key_mask: Tensor) -> Tensor:
    """Weights `B H Q T` of projected heads `B H Q d` and `B H T d`, before they are turned."""
    weights = torch.zeros(*query.shape[:3], key.shape[2])
    for b, mask in enumerate(key_mask.tolist()):
        for h in range(query.shape[1]):
            scale = math.exp(log_scale[h].item())
            given = [turned_pairs(one, j) for j, one in enumerate(key[b, h])]
            for i, one in enumerate(query[b, h]):
                asked, shares = turned_pairs(one, i), {}
                for j in (j for j, is_key in enumerate(mask) if is_key):
                    products = (q * k.conjugate() for q, k in zip(asked, given[j], strict=True))
                    shares[j] = math.exp(scale * sum(products).real)
                for j, share in shares.items():
                    weights[b, h, i, j] = share / sum(shares.values())
    return weights
