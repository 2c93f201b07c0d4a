"""Faithfulness of attention: remove the frames it names and follow the prediction.

Deletion and insertion curves (Petsiuk, Das, Saenko, BMVC 2018), comprehensiveness and sufficiency
(DeYoung et al., ACL 2020): an order of frames explains a prediction if the prediction falls fast as
the first of them are removed, and comes back fast as they are put in. A removed frame is masked,
like padding, so the model never sees it; all others keep their place in time.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from slrctl.core.clip import ClipBatch
from slrctl.core.model.build import Model
from slrctl.core.model.explain import Explanation, explain
from slrctl.core.model.fusion import CrossModalAttention, Streams
from slrctl.core.seeding import generator_for, stable_seed
from slrctl.studies.attention.record import STREAM_OF
from slrctl.studies.attention.summary import Bootstrap, MeanInterval, intervals_json

ATTENTION, QUERY, ROLLOUT, GRADIENT = "attention", "class query", "rollout", "gradient x input"
RANDOM, HANDS = "random", "hands first"
Scores = Mapping[str, Float[Tensor, "B T"]]


def explained_scores(model: Model, batch: ClipBatch, target: Int64[Tensor, " B"]) -> Scores:
    """Score every frame, higher for frames that matter more; scores compare within a clip.

    `attention`: what a frame receives in the six maps of fusion, each a mean over its rows; absent
    without fusion. `class query`: its weight in the last layer of the decoder. `rollout`: attention
    followed through all layers. `gradient x input`: the size of the gradient of the target's logit
    times the features, summed over the frame.
    """
    with torch.no_grad():
        explained = explain(model, batch)
        scores = {QUERY: explained.decoder[-1].mean(1)[:, 0], ROLLOUT: rollout(explained)}
        if explained.fusion is not None:
            scores = {ATTENTION: received(explained.fusion, batch), **scores}
    return {**scores, GRADIENT: gradient_times_input(model, batch, target)}


def received(fusion: CrossModalAttention, batch: ClipBatch) -> Float[Tensor, "B T"]:
    """Sum what each frame gets in the six maps, rows and heads averaged."""
    is_present = {
        "left": batch.left_is_present,
        "right": batch.right_is_present,
        "body": batch.is_valid,
    }
    total = torch.zeros(batch.is_valid.shape, device=batch.is_valid.device)
    for name, weights in fusion._asdict().items():
        rows = is_present[name.split("_to_")[0]].to(weights.dtype)
        mean = (weights.mean(1) * rows[..., None]).sum(1) / rows.sum(1, keepdim=True).clamp(min=1)
        total = total + mean
    return total


def rollout(explained: Explanation) -> Float[Tensor, "B T"]:
    """Follow attention from the class query back to the frames (Abnar and Zuidema 2020, eq. 1).

    Half of what a layer passes on is its input, half what it attends to. In fusion the second half
    comes from the two other streams in equal parts; the streams enter the decoder alike.
    """
    query = torch.stack([weights.mean(1)[:, 0] for weights in explained.decoder]).mean(0)
    streams = ("clip",) if explained.fusion is None else Streams._fields
    of_stream = dict.fromkeys(explained.encoders[0] if explained.encoders else streams, query)
    if explained.fusion is not None:
        of_stream = {stream: 0.5 * query for stream in of_stream}
        for name, weights in explained.fusion._asdict().items():
            read = STREAM_OF[name.split("_to_")[1]]
            of_stream[read] = of_stream[read] + 0.25 * _read(query, weights)
    for layer in reversed(explained.encoders):
        for stream, weights in layer.items():
            of_stream[stream] = 0.5 * (of_stream[stream] + _read(of_stream[stream], weights))
    return torch.stack(list(of_stream.values())).sum(0)


def _read(query: Float[Tensor, "B T"], weights: Float[Tensor, "B H T T"]) -> Float[Tensor, "B T"]:
    return torch.einsum("bi,bij->bj", query, weights.mean(1))


def gradient_times_input(
    model: Model, batch: ClipBatch, target: Int64[Tensor, " B"]
) -> Float[Tensor, "B T"]:
    """Sum |gradient x feature| over a frame's features (Shrikumar et al. 2016, sec. 2)."""
    names = (*Streams._fields, "placed")
    present = {name: getattr(batch, name) for name in names if getattr(batch, name) is not None}
    inputs = {name: values.detach().requires_grad_() for name, values in present.items()}
    with torch.enable_grad():
        logits = model(replace(batch, **inputs)).logits
        chosen = logits.gather(1, target[:, None]).sum()
        values = tuple(inputs.values())
        gradients = torch.autograd.grad(chosen, values, allow_unused=True)
    used = [(g, x) for g, x in zip(gradients, values, strict=True) if g is not None]
    return torch.stack([(g * x).detach().abs().flatten(2).sum(-1) for g, x in used]).sum(0)


def random_scores(batch: ClipBatch, seed: int, draw: int) -> Float[Tensor, "B T"]:
    """Draw scores at random; a clip's follow from (seed, its id, draw)."""
    scores = torch.zeros(batch.is_valid.shape)
    lengths = batch.is_valid.sum(-1).tolist()
    for row, clip_id, length in zip(scores, batch.clip_ids, lengths, strict=True):
        # Over its own frames only: padding must not change what a clip draws.
        row[:length] = torch.rand(
            length, generator=generator_for(seed, "random order", clip_id, draw)
        )
    return scores.to(batch.is_valid.device)


def hands_first_scores(batch: ClipBatch, seed: int, draw: int) -> Float[Tensor, "B T"]:
    """Score frames by the number of hands present, at random among equals.

    Attention between the hands can only go where a hand is: this is what that alone would give.
    """
    num_hands = batch.left_is_present.float() + batch.right_is_present.float()
    return num_hands + 0.999 * random_scores(batch, seed, draw)


CONTROLS = {HANDS: hands_first_scores, RANDOM: random_scores}
FRACTIONS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)
"""Shares of a clip's frames that are removed, or put in."""
SHORT_FRACTIONS = (0.05, 0.1, 0.2, 0.5)
"""Shares over which comprehensiveness and sufficiency are averaged (DeYoung et al., sec. 4)."""
NUM_RANDOM = 3
"""Random orders that are averaged."""
MEASURES = ("comprehensiveness", "sufficiency", "deletion", "insertion")
HIGHER_IS_BETTER = dict(zip(MEASURES, (True, False, False, True), strict=True))


class Curves(NamedTuple):
    """Probability of the whole clip's prediction as frames go or come, by `FRACTIONS`."""

    deletion: Float[np.ndarray, "N F"]
    insertion: Float[np.ndarray, "N F"]


def curves_of(
    model: Model,
    batches: Iterable[ClipBatch],
    seed: int,
    scores: Callable[[ClipBatch, Int64[Tensor, " B"]], Scores] | None = None,
) -> tuple[tuple[str, ...], dict[str, Curves]]:
    """Remove and put in the frames of every clip in the order of every explanation.

    Args:
        model: in evaluation mode.
        batches: prepared clips.
        seed: of the random orders.
        scores: other explanations to judge; `explained_scores` if absent.

    Returns:
        The ids of the clips, and the curves of each explanation and of both controls.
    """
    scores = scores or partial(explained_scores, model)
    clip_ids: list[str] = []
    found: dict[str, list[Curves]] = {}
    for batch in batches:
        clip_ids += batch.clip_ids
        predicted = _Predicted(model, batch)
        for name, frame_scores in scores(batch, predicted.target).items():
            found.setdefault(name, []).append(predicted.curves(frame_scores))
        for name, draw_scores in CONTROLS.items():
            drawn = [predicted.curves(draw_scores(batch, seed, draw)) for draw in range(NUM_RANDOM)]
            mean = Curves(*(np.mean(kind, axis=0) for kind in zip(*drawn, strict=True)))
            found.setdefault(name, []).append(mean)
    return tuple(clip_ids), {
        name: Curves(*(np.concatenate(kind) for kind in zip(*of_batches, strict=True)))
        for name, of_batches in found.items()
    }


class _Predicted:
    """A batch with its predicted labels, whose probability is followed as frames go or come."""

    @torch.no_grad()
    def __init__(self, model: Model, batch: ClipBatch) -> None:
        self.model, self.batch = model, batch
        self.target = model(batch).logits.argmax(-1)
        self.whole = self.probability(batch.is_valid)
        self.empty = self.probability(torch.zeros_like(batch.is_valid))

    @torch.no_grad()
    def probability(self, kept: Bool[Tensor, "B T"]) -> Float[np.ndarray, " B"]:
        probabilities = self.model(only_frames(self.batch, kept)).logits.double().softmax(-1)
        return probabilities.gather(1, self.target[:, None])[:, 0].cpu().numpy()

    def curves(self, scores: Float[Tensor, "B T"]) -> Curves:
        places = order_places(scores, self.batch.is_valid)
        lengths = self.batch.is_valid.sum(-1, keepdim=True)
        named = [places < (share * lengths).round() for share in FRACTIONS[1:-1]]
        deletion = [self.whole, *(self.probability(~one) for one in named), self.empty]
        insertion = [self.empty, *(self.probability(one) for one in named), self.whole]
        return Curves(np.stack(deletion, axis=1), np.stack(insertion, axis=1))


def order_places(
    scores: Float[Tensor, "B T"], is_valid: Bool[Tensor, "B T"]
) -> Int64[Tensor, "B T"]:
    """Return the rank of every frame in its clip, 0 for the highest score; padding comes last."""
    ranked = scores.masked_fill(~is_valid, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    return ranked.argsort(dim=-1)


def only_frames(batch: ClipBatch, kept: Bool[Tensor, "B T"]) -> ClipBatch:
    """Mask all other frames, as padding is."""
    return replace(
        batch,
        is_valid=batch.is_valid & kept,
        left_is_present=batch.left_is_present & kept,
        right_is_present=batch.right_is_present & kept,
    )


def sampled(clip_ids: Iterable[str], count: int, seed: int) -> list[str]:
    """Draw some of the clips, the same ones for the same seed."""
    ordered = sorted(clip_ids, key=lambda clip_id: stable_seed(seed, "faithfulness", clip_id))
    return ordered[:count]


_Table = dict[str, dict[str, MeanInterval]]


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """Curves of every order; measures with intervals, and their differences to two controls.

    `over` has the differences to each control: a random order, and a random order that takes frames
    with hands first, since attention between the hands can only go where hands are.

    Comprehensiveness is the probability lost with the first frames of the order, sufficiency the
    probability lost when only they are left; deletion and insertion are the areas under the curves.
    `primary` is the order the verdict is about.
    """

    clip_ids: tuple[str, ...]
    bootstrap: Bootstrap
    curves: dict[str, Curves]
    measures: _Table
    over: dict[str, _Table]
    primary: str


def judge(
    clip_ids: tuple[str, ...], curves: Mapping[str, Curves], bootstrap: Bootstrap
) -> Faithfulness:
    """Turn curves into measures with intervals over clips, and compare each order to random."""
    values = {name: measures_of(found) for name, found in curves.items()}

    def over(control: str) -> _Table:
        return {
            name: {key: bootstrap.mean(found[key] - values[control][key]) for key in MEASURES}
            for name, found in values.items()
            if name not in (RANDOM, control)
        }

    return Faithfulness(
        clip_ids=clip_ids,
        bootstrap=bootstrap,
        curves=dict(curves),
        measures={
            name: {key: bootstrap.mean(found[key]) for key in MEASURES}
            for name, found in values.items()
        },
        over={control: over(control) for control in CONTROLS},
        primary=next(name for name in (ATTENTION, QUERY, *curves) if name in curves),
    )


def measures_of(curves: Curves) -> dict[str, Float[np.ndarray, " N"]]:
    """Compute the four measures of every clip."""
    places = [FRACTIONS.index(share) for share in SHORT_FRACTIONS]
    whole = curves.deletion[:, :1]
    return {
        "comprehensiveness": (whole - curves.deletion[:, places]).mean(axis=1),
        "sufficiency": (whole - curves.insertion[:, places]).mean(axis=1),
        "deletion": np.trapezoid(curves.deletion, FRACTIONS, axis=1),
        "insertion": np.trapezoid(curves.insertion, FRACTIONS, axis=1),
    }


def verdict(found: Faithfulness, name: str | None = None) -> str:
    """Say in one sentence whether an order does better than random; the primary one if absent."""
    name = name or found.primary
    gap = found.over[RANDOM][name]["comprehensiveness"]
    over_hands = found.over[HANDS][name]["comprehensiveness"]
    alone = found.over[HANDS][name]["sufficiency"]
    start = f"removing the frames {name} names first hurts the prediction"
    if gap.high < 0:
        return (
            f"{start} less than removing random ones ({_size(gap)}): it does worse than random, "
            "do not read it as importance"
        )
    if gap.low <= 0:
        return (
            f"{start} no more than removing random ones ({_size(gap)}): it does no better than "
            "random, do not read it as importance"
        )
    if over_hands.low <= 0:
        return (
            f"{start} more than removing random ones ({_size(gap)}), but no more than removing "
            f"frames in which hands are seen ({_size(over_hands)}): beyond where the hands are, it "
            "does no better than random"
        )
    more = (
        f"{start} more than removing random ones ({_size(gap)}) or random ones in which hands are "
        f"seen ({_size(over_hands)})"
    )
    if alone.low > 0:
        return (
            f"{more}, but as many random frames with hands alone keep more of the prediction "
            f"({_size(alone)}): the evidence is mixed, do not rely on it as an order of importance"
        )
    return f"{more}: as an order of importance it can be believed this far"


def _size(gap: MeanInterval) -> str:
    return f"{gap.mean:+.3f} in probability, 95 % interval {gap.low:+.3f} to {gap.high:+.3f}"


def faithfulness_json(found: Faithfulness) -> dict[str, Any]:
    """Return everything but single clips, fit for JSON."""
    orders = {}
    for name, curves in found.curves.items():
        orders[name] = {
            "deletion_curve": curves.deletion.mean(axis=0).tolist(),
            "insertion_curve": curves.insertion.mean(axis=0).tolist(),
            **intervals_json(found.measures[name]),
        }
        for control, table in found.over.items():
            of_control, over = control.replace(" ", "_"), intervals_json(table.get(name, {}))
            orders[name] |= {f"{key}_over_{of_control}": value for key, value in over.items()}
    return {
        "clips": len(found.clip_ids),
        "ci_unit": found.bootstrap.kind,
        "fractions": list(FRACTIONS),
        "primary": found.primary,
        "verdict": verdict(found),
        "orders": orders,
    }
