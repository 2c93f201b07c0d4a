"""Measures of faithfulness: they tell a true explanation from a wrong one."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from slrctl.core.clip import ClipBatch
from slrctl.core.data.batches import evaluation_batches
from slrctl.core.data.dataset import SignDataset
from slrctl.core.data.splits import choose_splits
from slrctl.core.data.synthetic import SynthesisParameters, synthesise
from slrctl.core.model.build import build_model
from slrctl.core.model.explain import explain
from slrctl.runs.checkpoint import load_run
from slrctl.settings import DataSettings, Settings
from slrctl.studies.attention.faithfulness import (
    FRACTIONS,
    Curves,
    curves_of,
    faithfulness_json,
    gradient_times_input,
    judge,
    measures_of,
    only_frames,
    order_places,
    random_scores,
    received,
    rollout,
    verdict,
)
from slrctl.studies.attention.summary import Bootstrap
from slrctl.training.run import run_training

_STREAMS = ("left_hand", "right_hand", "body")


@pytest.fixture
def model(tiny_settings):
    return build_model(tiny_settings.model, 4, seed=3).eval()


@pytest.fixture(params=["siformer", "streamformer"])
def subject(request, tiny_settings, small_settings, batch, placed_batch):
    """A model, and clips that it reads."""
    if request.param == "siformer":
        return build_model(tiny_settings.model, 4, seed=3).eval(), batch
    model: Any = build_model(small_settings.model, 4, seed=3).eval()
    with torch.no_grad():
        for gate in model.fusion.gates:  # as after some training
            gate.fill_(0.5)
    return model, placed_batch


def test_frames_are_taken_from_the_highest_score_down_and_padding_last():
    scores = torch.tensor([[0.1, 0.9, 0.5, 5.0]])
    is_valid = torch.tensor([[True, True, True, False]])

    assert order_places(scores, is_valid).tolist() == [[2, 0, 1, 3]]


@torch.no_grad()
def test_a_removed_frame_is_never_seen(subject):
    model, batch = subject
    kept = torch.ones_like(batch.is_valid)
    kept[:, 2] = False
    garbage = replace(batch, left_hand=batch.left_hand.clone(), body=batch.body.clone())
    garbage.left_hand[:, 2] = 99.0
    garbage.body[:, 2] = -99.0
    if batch.placed is not None:
        garbage = replace(garbage, placed=batch.placed.clone())
        garbage.placed[:, 2] = 99.0

    logits = model(only_frames(batch, kept)).logits

    torch.testing.assert_close(model(only_frames(garbage, kept)).logits, logits)


def test_curves_start_and_end_at_the_whole_clip_and_at_nothing(subject):
    model, batch = subject

    _, curves = curves_of(model, [batch], seed=0)

    names = ("class query", "rollout", "attention", "gradient x input", "hands first", "random")
    assert set(curves) == set(names)
    deletion, insertion = np.stack([curves[name] for name in names], axis=1)
    whole = model(batch).logits.double().softmax(-1).amax(-1).detach().numpy()
    assert deletion.shape == (len(names), 3, len(FRACTIONS))
    assert_allclose(deletion[..., 0], np.tile(whole, (len(names), 1)), rtol=1e-5)
    assert_allclose(insertion[..., -1], np.tile(whole, (len(names), 1)), rtol=1e-5)
    assert_allclose(deletion[..., -1], insertion[..., 0])


@torch.no_grad()
def test_a_curve_is_what_a_plain_loop_gives(model, batch):
    scores = torch.rand(batch.is_valid.shape, generator=torch.Generator().manual_seed(1))

    _, curves = curves_of(model, [batch], 0, lambda batch, target: {"ours": scores})

    place = FRACTIONS.index(0.3)
    for row in range(3):
        length = int(batch.is_valid[row].sum())
        order = sorted(range(length), key=lambda frame: -float(scores[row, frame]))
        kept = torch.ones_like(batch.is_valid)
        for frame in order[: round(0.3 * length)]:
            kept[row, frame] = False
        target = int(model(batch).logits[row].argmax())
        shown = model(only_frames(batch, kept)).logits[row].double().softmax(-1)
        assert_allclose(curves["ours"].deletion[row, place], float(shown[target]), rtol=1e-5)


def test_measures_worked_by_hand():
    falling = np.array([[1.0, 0.8, 0.6, 0.4, 0.4, 0.2, 0.0, 0.0, 0.0]])
    rising = falling[:, ::-1]

    found = measures_of(Curves(falling, rising))

    assert_allclose(found["comprehensiveness"], 1 - np.mean([0.8, 0.6, 0.4, 0.2]))
    assert_allclose(found["sufficiency"], 1 - np.mean([0.0, 0.0, 0.2, 0.4]))
    # Trapezoids over 0, .05, .1, .2, .3, .5, .7, .9, 1.
    assert_allclose(found["deletion"], 0.045 + 0.035 + 0.05 + 0.04 + 0.06 + 0.02)


@torch.no_grad()
def test_received_attention_is_a_plain_sum_of_column_means(model, batch):
    fusion = explain(model, batch).fusion
    assert fusion is not None

    found = received(fusion, batch)

    masks = (batch.left_is_present, batch.right_is_present, batch.is_valid)
    present: dict[str, torch.Tensor] = dict(zip(("left", "right", "body"), masks, strict=True))
    for row in range(3):
        for frame in range(batch.is_valid.shape[1]):
            total = 0.0
            for name, weights in fusion._asdict().items():
                readers = torch.nonzero(present[name.split("_to_")[0]][row])[:, 0].tolist()
                values = [float(weights[row, :, i, frame].mean()) for i in readers]
                total += sum(values) / max(len(values), 1)
            assert float(found[row, frame]) == pytest.approx(total, rel=1e-5, abs=1e-7)


@torch.no_grad()
def test_rollout_is_a_product_of_matrices_from_the_query_to_the_frames(model, batch):
    explained = explain(model, batch)

    found = rollout(explained)

    assert explained.fusion is not None
    names, eye = ("left", "right", "body"), torch.eye(batch.is_valid.shape[1])
    (query,) = (weights.mean(1)[:, 0] for weights in explained.decoder)
    expected = torch.zeros_like(found)
    for row in range(3):
        steps = [[0.5 * (eye + layer[stream][row].mean(0)) for stream in layer]
                 for layer in explained.encoders]  # fmt: skip
        encoders = dict(zip(names, (upper @ lower for lower, upper in zip(*steps, strict=True)),
                            strict=True))  # fmt: skip
        for own in names:
            expected[row] += 0.5 * query[row] @ encoders[own]
            for other in names:
                if other != own:
                    weights = getattr(explained.fusion, f"{own}_to_{other}")[row].mean(0)
                    expected[row] += 0.25 * query[row] @ weights @ encoders[other]
    torch.testing.assert_close(found, expected)
    assert not found[~batch.is_valid].any()


@torch.no_grad()
def test_rollout_of_the_default_model_is_its_class_query_read_through_the_fusion(
    small_settings, placed_batch
):
    explained = explain(build_model(small_settings.model, 4, seed=3).eval(), placed_batch)

    found = rollout(explained)

    (query,) = (weights.mean(1)[:, 0] for weights in explained.decoder)
    expected = torch.zeros_like(found)
    assert explained.fusion is not None
    for row in range(3):
        # Of three streams, each passes on half of itself and a quarter of either other.
        expected[row] += 3 * 0.5 * query[row]
        for weights in explained.fusion:
            expected[row] += 0.25 * query[row] @ weights[row].mean(0)
    torch.testing.assert_close(found, expected)


def test_gradient_times_input_matches_finite_differences(subject):
    model, batch = subject
    names = _STREAMS if batch.placed is None else (*_STREAMS, "placed")
    streams = {name: getattr(batch, name).double() for name in names}
    model, double, target = model.double(), replace(batch, **streams), torch.tensor([0, 1, 2])

    found = gradient_times_input(model, double, target)

    step, frame, row = 1e-6, 1, 0
    total = 0.0
    with torch.no_grad():
        base = model(double).logits[row, target[row]]
        for name, features in streams.items():
            for place in np.ndindex(features.shape[2:]):
                at, moved = (row, frame, *place), features.clone()
                moved[at] += step
                up = model(replace(double, **{name: moved})).logits[row, target[row]]
                total += abs(float((up - base) / step) * float(features[at]))
    assert float(found[row, frame]) == pytest.approx(total, rel=1e-3)


def test_a_random_order_follows_from_the_clip_and_not_from_its_batch(batch):
    names = (*_STREAMS, "is_valid", "left_is_present", "right_is_present")
    cut = {name: getattr(batch, name)[1:2, :5] for name in names}
    alone = ClipBatch(**cut, target=None, clip_ids=batch.clip_ids[1:2])

    assert torch.equal(random_scores(alone, 0, 1)[0, :5], random_scores(batch, 0, 1)[1, :5])


@pytest.mark.parametrize(
    ("attention", "hands", "kept", "words"),
    [
        (0.0, 0.0, 0.5, "no better than random"),
        (-0.2, 0.0, 0.5, "worse than random"),
        (0.2, 0.2, 0.5, "beyond where the hands are, it does no better"),
        (0.3, 0.1, 0.5, "can be believed this far"),
        (0.3, 0.1, 0.4, "the evidence is mixed"),
    ],
)
def test_the_verdict_says_whether_attention_beats_chance(attention, hands, kept, words):
    generator = np.random.default_rng(0)

    def curve(drop, kept=0.5):
        noise = 0.01 * generator.normal(size=(30, len(FRACTIONS)))
        values = 0.9 - drop + noise
        values[:, 0] = 0.9
        return Curves(values, np.full_like(values, kept))

    curves = {
        "attention": curve(0.3 + attention, kept),
        "hands first": curve(0.3 + hands),
        "random": curve(0.3),
    }
    found = judge(tuple(map(str, range(30))), curves, Bootstrap("clip", np.arange(30), 200, 0))

    assert words in verdict(found)
    assert faithfulness_json(found)["verdict"] == verdict(found)


@pytest.mark.slow
def test_a_planted_explanation_ranks_above_random_on_the_demo_set(tmp_path):
    # The stroke of a synthetic clip is known; signs differ in it alone.
    parameters = SynthesisParameters(num_glosses=8, num_train_signers=4, max_frames=32)
    demo = synthesise(parameters)
    settings = Settings.layered(
        {
            "train": {"epochs": 6, "batch_size": 12},
            # Frames stay where the truth has them.
            "prepare": {"num_frames": 0, "trim_rest": False},
            "model": {"embed_dim": 32, "joint_dim": 64},
            "evaluate": {"resamples": 300},
        }
    )
    splits = choose_splits(demo.dataset, None, None, DataSettings(), seed=0)
    for _ in run_training(settings, splits, tmp_path / "run"):
        pass
    run = load_run(tmp_path / "run")
    clips = SignDataset(tuple(splits.val), run.classes, "val")

    def planted(batch, target):
        truth = torch.zeros(batch.is_valid.shape)
        for row, clip_id in enumerate(batch.clip_ids):
            first, last = demo.truth[clip_id].stroke
            truth[row, first:last] = 1.0
        # At random within the stroke, and outside it.
        stroke = truth + 0.5 * random_scores(batch, 1, 0)
        return {"planted": stroke, "reversed": -stroke}

    batches = evaluation_batches(clips, settings, batch_size=32)
    clip_ids, curves = curves_of(run.model, batches, 0, planted)
    bootstrap = Bootstrap.of_clips(list(clips), resamples=300, seed=0)
    found = judge(clip_ids, curves, bootstrap)

    over_random = found.over["random"]["planted"]
    assert over_random["comprehensiveness"].low > 0
    assert over_random["deletion"].high < 0
    planted_mean, reversed_mean = (
        found.measures[name]["comprehensiveness"].mean for name in ("planted", "reversed")
    )
    assert planted_mean > reversed_mean
    assert "more than removing random ones" in verdict(found, "planted")
