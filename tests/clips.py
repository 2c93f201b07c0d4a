"""Clips made for tests."""

import numpy as np
import torch

from slrctl.core.clip import Clip


def prepared_clip(rng: torch.Generator, clip_id: str, num_frames: int, gloss: str = "0") -> Clip:
    """Random landmarks within their boxes, as preparation gives them; all are present."""
    landmarks = torch.rand(num_frames, 54, 2, generator=rng).sub(0.5).numpy()
    return Clip(clip_id, gloss, landmarks.astype(np.float32))
