"""Attention maps for tests."""

import numpy as np

from slrctl.core.clip import Clip
from slrctl.settings import CMCLSettings
from slrctl.studies.attention.measures import MeasuredClip, measure
from slrctl.studies.attention.record import AttentionMap, InspectedClip

DIRECTIONS = (
    "left_to_right",
    "left_to_body",
    "right_to_left",
    "right_to_body",
    "body_to_left",
    "body_to_right",
)
STREAMS = {"left": "left_hand", "right": "right_hand", "body": "body"}


def softmax_rows(scores, keys):
    """Compute a plain softmax over the keys that count; rows of zeros where there is none."""
    weights = np.where(keys, np.exp(scores - scores.max()), 0.0)
    total = weights.sum(axis=-1, keepdims=True)
    return np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)


def directed(name, weights, rows=None, keys=None):
    """Make a map between hands; all frames are there unless said otherwise."""
    weights = np.asarray(weights, np.float32)
    if weights.ndim == 2:
        weights = weights[None]
    reader, read = (STREAMS[stream] for stream in name.split("_to_"))
    return AttentionMap(
        name,
        reader,
        read,
        weights,
        np.ones(weights.shape[1], bool) if rows is None else np.asarray(rows, bool),
        np.ones(weights.shape[2], bool) if keys is None else np.asarray(keys, bool),
    )


def shifted(num_frames, shift):
    """Let every frame attend to the one `shift` later, where there is one."""
    weights = np.zeros((num_frames, num_frames))
    for frame in range(num_frames):
        if 0 <= frame + shift < num_frames:
            weights[frame, frame + shift] = 1.0
    return weights


def inspected_clip(clip_id, seed=0, *, num_frames=9, gloss="sign", signer=None):
    """Make a clip with peaked random maps; the left hand is missing in its first two frames."""
    generator = np.random.default_rng(seed)
    landmarks = generator.uniform(0.2, 0.8, (num_frames, 54, 2)).astype(np.float32)
    landmarks[:2, 12:33] = np.nan
    valid = np.ones(num_frames, bool)
    present = {"left": np.arange(num_frames) >= 2, "right": valid, "body": valid}

    def weights(heads, rows, keys):
        scores = 3 * generator.normal(size=(heads, rows, num_frames))
        return softmax_rows(scores, keys).astype(np.float32)

    fusion = tuple(
        directed(name, weights(3, num_frames, present[read]), present[reader], present[read])
        for name in DIRECTIONS
        for reader, read in [name.split("_to_")]
    )
    encoder = tuple(
        AttentionMap(name, name, name, weights(heads, num_frames, valid), valid, valid)
        for name, heads in (("left_hand", 3), ("right_hand", 2), ("body", 2))
    )
    query = AttentionMap(
        "class_query", "class_query", "clip", weights(4, 1, valid), np.ones(1, bool), valid
    )
    norms = {
        name: generator.uniform(0.1, 1, (num_frames, 3)).astype(np.float32)
        for name in STREAMS.values()
    }
    return InspectedClip(
        clip=Clip(clip_id, gloss, landmarks, signer=signer, fps=25.0),
        classes=(gloss, "other"),
        logits=np.array([1.0, 0.0], np.float32),
        is_present={STREAMS[short]: mask for short, mask in present.items()},
        layers={"fusion": fusion, "encoder-1": encoder, "decoder-1": (query,)},
        gates=None,
        norms=norms,
        misplaced=0.0,
    )


def measured_clip(clip_id, seed=0, **changes):
    inspected = inspected_clip(clip_id, seed, **changes)
    return MeasuredClip(inspected, measure(inspected, CMCLSettings()))
