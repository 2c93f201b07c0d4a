"""What different explanations say of each frame of a clip: how much the prediction hangs on it."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from slrctl.core.clip import ClipBatch
from slrctl.core.model import SiFormer, Spoter
from slrctl.core.model.explanation import Explanation, explain
from slrctl.core.model.fusion import CrossModalAttention, Streams
from slrctl.core.seeding import generator_for

ATTENTION, QUERY, ROLLOUT, GRADIENT = "attention", "class query", "rollout", "gradient x input"
RANDOM, HANDS = "random", "hands first"
_STREAMS = {"left": "left_hand", "right": "right_hand", "body": "body"}


def explained_scores(
    model: SiFormer | Spoter, batch: ClipBatch, target: Int64[Tensor, " B"]
) -> dict[str, Float[Tensor, "B T"]]:
    """Scores of every frame, higher for frames that matter more; compare them within a clip.

    `attention`: what a frame receives in the six maps of fusion, each a mean over its rows; absent
    without fusion. `class query`: what the last layer of the decoder takes from it. `rollout`:
    attention followed through all layers. `gradient x input`: the size of the gradient of the
    target's logit times the features, summed over the frame.
    """
    with torch.no_grad():
        explained = explain(model, batch)
        scores = {QUERY: explained.decoder[-1].mean(1)[:, 0], ROLLOUT: rollout(explained, batch)}
        if explained.fusion is not None:
            scores = {ATTENTION: received(explained.fusion, batch), **scores}
    return {**scores, GRADIENT: gradient_times_input(model, batch, target)}


def received(fusion: CrossModalAttention, batch: ClipBatch) -> Float[Tensor, "B T"]:
    """What each frame gets in the six maps together, rows and heads averaged."""
    present = _presence(batch)
    total = torch.zeros(batch.is_valid.shape, device=batch.is_valid.device)
    for name, weights in fusion._asdict().items():
        rows = present[name.split("_to_")[0]].to(weights.dtype)
        mean = (weights.mean(1) * rows[..., None]).sum(1) / rows.sum(1, keepdim=True).clamp(min=1)
        total = total + mean
    return total


def rollout(explained: Explanation, batch: ClipBatch) -> Float[Tensor, "B T"]:
    """Follow attention from the class query back to the frames (Abnar and Zuidema 2020, eq. 1).

    Half of what a layer passes on is what it had, half what it attends to. In fusion the second
    half comes from the two other streams in equal parts; the streams enter the decoder alike.
    """
    query = torch.stack([weights.mean(1)[:, 0] for weights in explained.decoder]).mean(0)
    passed = {part: _through_encoder(explained, part) for part in explained.encoders[0]}
    if explained.fusion is None:
        return sum((_read(query, weights) for weights in passed.values()), torch.zeros_like(query))
    total = torch.zeros_like(query)
    maps = explained.fusion._asdict()
    for short, part in _STREAMS.items():
        messages = {n.split("_to_")[1]: m.mean(1) for n, m in maps.items() if n.startswith(short)}
        total = total + 0.5 * _read(query, passed[part])
        for other, weights in messages.items():
            total = total + 0.25 * _read(_read(query, weights), passed[_STREAMS[other]])
    return total


def _through_encoder(explained: Explanation, part: str) -> Float[Tensor, "B T T"]:
    passed = None
    for layer in explained.encoders:
        weights = layer[part].mean(1)
        eye = torch.eye(weights.shape[-1], device=weights.device)
        step = 0.5 * weights + 0.5 * eye
        passed = step if passed is None else step @ passed
    if passed is None:
        raise ValueError("an encoder has at least one layer")
    return passed


def _read(query: Float[Tensor, "B T"], weights: Float[Tensor, "B T T"]) -> Float[Tensor, "B T"]:
    return torch.einsum("bi,bij->bj", query, weights)


def gradient_times_input(
    model: SiFormer | Spoter, batch: ClipBatch, target: Int64[Tensor, " B"]
) -> Float[Tensor, "B T"]:
    """Sum over a frame's features of |gradient x feature| (Shrikumar et al. 2016, sec. 2)."""
    inputs = Streams(
        batch.left_hand.detach().requires_grad_(),
        batch.right_hand.detach().requires_grad_(),
        batch.body.detach().requires_grad_(),
    )
    with torch.enable_grad():
        logits = model(replace(batch, **inputs._asdict())).logits
        chosen = logits.gather(1, target[:, None]).sum()
        gradients = torch.autograd.grad(chosen, inputs)
    parts = zip(gradients, inputs, strict=True)
    return torch.stack([(gradient * x).abs().sum(-1) for gradient, x in parts]).sum(0).detach()


def random_scores(batch: ClipBatch, seed: int, draw: int) -> Float[Tensor, "B T"]:
    """Scores that know nothing; a clip's follow from (seed, its id, draw)."""
    length = batch.is_valid.shape[1]
    rows = [
        # Over its own frames only: padding must not change what a clip draws.
        torch.rand(int(valid.sum()), generator=generator_for(seed, "random order", clip_id, draw))
        for clip_id, valid in zip(batch.clip_ids, batch.is_valid, strict=True)
    ]
    padded = torch.zeros(len(rows), length)
    for place, row in zip(padded, rows, strict=True):
        place[: len(row)] = row
    return padded.to(batch.is_valid.device)


def hands_first_scores(batch: ClipBatch, seed: int, draw: int) -> Float[Tensor, "B T"]:
    """Frames with both hands, then those with one, then the others; at random among equals.

    Attention between the hands can only go where a hand is: this is what that alone would give.
    """
    num_hands = batch.left_is_present.float() + batch.right_is_present.float()
    return num_hands + 0.999 * random_scores(batch, seed, draw)


def _presence(batch: ClipBatch) -> Mapping[str, Bool[Tensor, "B T"]]:
    return {
        "left": batch.left_is_present,
        "right": batch.right_is_present,
        "body": batch.is_valid,
    }
