"""Can attention be believed? Remove the frames it names and see whether the prediction follows.

Deletion and insertion curves (Petsiuk, Das, Saenko, BMVC 2018), comprehensiveness and sufficiency
(DeYoung et al., ACL 2020): an order of frames explains a prediction if the prediction falls fast as
the first of them are removed, and comes back fast as they are put in. A removed frame is masked,
like padding, so the model never sees it; all others keep their place in time.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from slrctl.core.clip import ClipBatch
from slrctl.core.model import SiFormer, Spoter
from slrctl.core.model.explain import Explanation, explain
from slrctl.core.model.fusion import CrossModalAttention, Streams
from slrctl.core.seeding import generator_for, stable_seed
from slrctl.studies.attention.measures import Interval, Units, mean_interval

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


FRACTIONS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)
"""Shares of a clip's frames that are removed, or put in."""
SHORT_FRACTIONS = (0.05, 0.1, 0.2, 0.5)
"""Shares over which comprehensiveness and sufficiency are averaged (DeYoung et al., sec. 4)."""
NUM_RANDOM = 3
"""Random orders that are averaged."""
MEASURES = ("comprehensiveness", "sufficiency", "deletion", "insertion")
HIGHER_IS_BETTER = {
    "comprehensiveness": True,
    "sufficiency": False,
    "deletion": False,
    "insertion": True,
}

Scores = Callable[[ClipBatch, Int64[Tensor, " B"]], Mapping[str, Float[Tensor, "B T"]]]


class Curves(NamedTuple):
    """Probability of the whole clip's prediction as frames go or come, by `FRACTIONS`."""

    deletion: Float[np.ndarray, "N F"]
    insertion: Float[np.ndarray, "N F"]


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """Curves of every order; measures with intervals, and their differences to two controls.

    `differences` are to a random order, `over_hands` to a random order that takes frames with hands
    first, since attention between the hands can only go where hands are.

    Comprehensiveness is how much probability the first frames of the order take with them,
    sufficiency how much is lost when only they are left; deletion and insertion are the areas under
    the curves. `primary` is the order the sentence is about.
    """

    clip_ids: tuple[str, ...]
    units: Units
    curves: dict[str, Curves]
    measures: dict[str, dict[str, Interval]]
    differences: dict[str, dict[str, Interval]]
    over_hands: dict[str, dict[str, Interval]]
    primary: str


def curves_of(
    model: SiFormer | Spoter, batches: Iterable[ClipBatch], seed: int, scores: Scores | None = None
) -> tuple[tuple[str, ...], dict[str, Curves]]:
    """Remove and put in the frames of every clip in the order of every explanation.

    Args:
        model: in evaluation mode.
        batches: prepared clips.
        seed: of the random orders.
        scores: other explanations to judge; attention and those beside it if absent.
    """
    explain_frames = scores or (lambda batch, target: explained_scores(model, batch, target))
    clip_ids: list[str] = []
    parts: dict[str, list[Curves]] = {}
    for batch in batches:
        clip_ids += batch.clip_ids
        ends = _ends(model, batch)
        for name, frame_scores in explain_frames(batch, ends.target).items():
            parts.setdefault(name, []).append(_curves(model, batch, ends, frame_scores))
        for name, draw_scores in ((HANDS, hands_first_scores), (RANDOM, random_scores)):
            drawn = [
                _curves(model, batch, ends, draw_scores(batch, seed, draw))
                for draw in range(NUM_RANDOM)
            ]
            parts.setdefault(name, []).append(
                Curves(*(np.mean(together, axis=0) for together in zip(*drawn, strict=True)))
            )
    joined = {
        name: Curves(*(np.concatenate(pieces) for pieces in zip(*found, strict=True)))
        for name, found in parts.items()
    }
    return tuple(clip_ids), joined


def judge(
    clip_ids: tuple[str, ...],
    curves: Mapping[str, Curves],
    units: Units,
    *,
    resamples: int,
    seed: int,
) -> Faithfulness:
    """Turn curves into measures with intervals over clips, and compare each order to random."""
    values = {name: measures_of(found) for name, found in curves.items()}
    options = {"resamples": resamples, "seed": seed}
    return Faithfulness(
        clip_ids=clip_ids,
        units=units,
        curves=dict(curves),
        measures={
            name: {key: mean_interval(column, units, **options) for key, column in found.items()}
            for name, found in values.items()
        },
        differences=_beside(values, RANDOM, units, **options),
        over_hands=_beside(values, HANDS, units, **options),
        primary=next(name for name in (ATTENTION, QUERY, *curves) if name in curves),
    )


def _beside(
    values: Mapping[str, Mapping[str, Float[np.ndarray, " N"]]],
    baseline: str,
    units: Units,
    *,
    resamples: int,
    seed: int,
) -> dict[str, dict[str, Interval]]:
    """Each order's measures minus the baseline's, clip by clip."""
    return {
        name: {
            key: mean_interval(
                column - values[baseline][key], units, resamples=resamples, seed=seed
            )
            for key, column in found.items()
        }
        for name, found in values.items()
        if name not in (RANDOM, baseline)
    }


def measures_of(curves: Curves) -> dict[str, Float[np.ndarray, " N"]]:
    """The four measures of every clip."""
    places = [FRACTIONS.index(share) for share in SHORT_FRACTIONS]
    whole = curves.deletion[:, :1]
    return {
        "comprehensiveness": (whole - curves.deletion[:, places]).mean(axis=1),
        "sufficiency": (whole - curves.insertion[:, places]).mean(axis=1),
        "deletion": np.trapezoid(curves.deletion, FRACTIONS, axis=1),
        "insertion": np.trapezoid(curves.insertion, FRACTIONS, axis=1),
    }


def verdict(found: Faithfulness, name: str | None = None) -> str:
    """One sentence: does this order do better than a random one?"""
    name = name or found.primary
    gap = found.differences[name]["comprehensiveness"]
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
    over_hands = found.over_hands[name]["comprehensiveness"]
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
    alone = found.over_hands[name]["sufficiency"]
    if alone.low > 0:
        return (
            f"{more}, but as many random frames with hands alone keep more of the prediction "
            f"({_size(alone)}): the evidence is mixed, do not rely on it as an order of importance"
        )
    return f"{more}: as an order of importance it can be believed this far"


def _size(gap: Interval) -> str:
    return f"{gap.mean:+.3f} in probability, 95 % interval {gap.low:+.3f} to {gap.high:+.3f}"


def faithfulness_json(found: Faithfulness) -> dict[str, Any]:
    """Everything but single clips, fit for JSON."""
    return {
        "clips": len(found.clip_ids),
        "ci_unit": found.units.kind,
        "fractions": list(FRACTIONS),
        "primary": found.primary,
        "verdict": verdict(found),
        "orders": {
            name: {
                "deletion_curve": curves.deletion.mean(axis=0).tolist(),
                "insertion_curve": curves.insertion.mean(axis=0).tolist(),
                **{key: value.to_json() for key, value in found.measures[name].items()},
                **{
                    f"{key}_over_random": value.to_json()
                    for key, value in found.differences.get(name, {}).items()
                },
                **{
                    f"{key}_over_hands_first": value.to_json()
                    for key, value in found.over_hands.get(name, {}).items()
                },
            }
            for name, curves in found.curves.items()
        },
    }


class _Ends(NamedTuple):
    """The predicted labels, and their probability with all frames and with none."""

    target: Int64[Tensor, " B"]
    whole: Float[np.ndarray, " B"]
    empty: Float[np.ndarray, " B"]


def _ends(model: SiFormer | Spoter, batch: ClipBatch) -> _Ends:
    probabilities = _probabilities(model, batch)
    target = probabilities.argmax(-1)
    nothing = _probabilities(model, only_frames(batch, torch.zeros_like(batch.is_valid)))
    return _Ends(target, _of(probabilities, target), _of(nothing, target))


def _curves(
    model: SiFormer | Spoter, batch: ClipBatch, ends: _Ends, scores: Float[Tensor, "B T"]
) -> Curves:
    first = order_places(scores, batch.is_valid)
    lengths = batch.is_valid.sum(-1, keepdim=True)
    deletion, insertion = [ends.whole], [ends.empty]
    for share in FRACTIONS[1:-1]:
        is_named = first < (share * lengths).round()
        for curve, kept in ((deletion, ~is_named), (insertion, is_named)):
            curve.append(_of(_probabilities(model, only_frames(batch, kept)), ends.target))
    return Curves(
        np.stack([*deletion, ends.empty], axis=1), np.stack([*insertion, ends.whole], axis=1)
    )


def _of(probabilities: Float[Tensor, "B K"], target: Int64[Tensor, " B"]) -> np.ndarray:
    return probabilities.gather(1, target[:, None])[:, 0].cpu().numpy()


def order_places(
    scores: Float[Tensor, "B T"], is_valid: Bool[Tensor, "B T"]
) -> Int64[Tensor, "B T"]:
    """The place of every frame in its clip's order, 0 for the highest score; padding comes last."""
    ranked = scores.masked_fill(~is_valid, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    return ranked.argsort(dim=-1)


def only_frames(batch: ClipBatch, kept: Bool[Tensor, "B T"]) -> ClipBatch:
    """The batch with all other frames masked, as padding is."""
    return replace(
        batch,
        is_valid=batch.is_valid & kept,
        left_is_present=batch.left_is_present & kept,
        right_is_present=batch.right_is_present & kept,
    )


@torch.no_grad()
def _probabilities(model: SiFormer | Spoter, batch: ClipBatch) -> Float[Tensor, "B K"]:
    return model(batch).logits.double().softmax(-1)


def sampled(clip_ids: Iterable[str], count: int, seed: int) -> Iterator[str]:
    """Some of the clips, the same ones for the same seed."""
    ordered = sorted(clip_ids, key=lambda clip_id: stable_seed(seed, "faithfulness", clip_id))
    yield from ordered[:count]
