"""Attention maps made for tests."""

import numpy as np

from slrctl.studies.attention.record import AttentionMap


def softmax_rows(scores, keys):
    """Plain softmax over the keys that count; rows of zeros where there is none."""
    weights = np.where(keys, np.exp(scores - scores.max()), 0.0)
    total = weights.sum(axis=-1, keepdims=True)
    return np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)


def directed(name, weights, rows=None, keys=None):
    """A map between hands; all frames are there unless said otherwise."""
    weights = np.asarray(weights, np.float32)
    if weights.ndim == 2:
        weights = weights[None]
    short = {"left": "left_hand", "right": "right_hand", "body": "body"}
    reader, read = (short[part] for part in name.split("_to_"))
    return AttentionMap(
        name,
        reader,
        read,
        weights,
        np.ones(weights.shape[1], bool) if rows is None else np.asarray(rows, bool),
        np.ones(weights.shape[2], bool) if keys is None else np.asarray(keys, bool),
    )


def shifted(num_frames, shift):
    """Every frame attends to the one `shift` later, where there is one."""
    weights = np.zeros((num_frames, num_frames))
    for frame in range(num_frames):
        if 0 <= frame + shift < num_frames:
            weights[frame, frame + shift] = 1.0
    return weights
