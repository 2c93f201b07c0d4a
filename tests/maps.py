"""Attention maps for tests of the consistency terms."""

import torch


def permutation_map(shift: int, size: int) -> torch.Tensor:
    """Make one clip: frame i attends to frame i + shift alone."""
    return torch.eye(size).roll(shift, dims=1)[None]


def present(*rows: list[int]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.bool)


def random_maps(
    rng: torch.Generator, keys_present: torch.Tensor, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Draw two heads whose rows sum to 1 over the present keys; all 0 where there is none."""
    num_clips, num_frames = keys_present.shape
    weights = torch.rand(num_clips, 2, num_frames, num_frames, generator=rng, dtype=dtype)
    weights = weights * keys_present[:, None, None]
    return weights / weights.sum(-1, keepdim=True).clamp(min=1e-30)
