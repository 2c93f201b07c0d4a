"""Attention over a set: means on a grid, groups and what must be zero."""

import json

import numpy as np
import pytest
import torch
from attention_maps import directed, shifted
from numpy.testing import assert_allclose

from slrctl.core.data.synthetic import SynthesisParameters, synthesise
from slrctl.core.model.build import build_model
from slrctl.runs.checkpoint import LoadedRun
from slrctl.studies.attention.inspect import inspect_clips
from slrctl.studies.attention.summary import (
    Bootstrap,
    compare,
    on_grid,
    overlap,
    summarise,
    summary_json,
)


def test_cells_of_a_clip_hold_all_of_every_frame():
    shares = overlap(7, 4)

    assert_allclose(shares.sum(axis=0), 1 / 7)
    assert_allclose(shares.sum(axis=1), 1 / 4)


def test_uniform_attention_is_1_wherever_there_is_any():
    keys = np.arange(12) % 3 > 0
    found = directed("left_to_right", np.tile(keys / keys.sum(), (12, 1)), keys=keys)

    assert_allclose(on_grid(found, 4), 1.0, rtol=1e-6)


@pytest.mark.parametrize("length", [8, 16, 40])
def test_a_diagonal_stays_one_whatever_the_length(length):
    grid = on_grid(directed("left_to_right", shifted(length, 0)), 4)

    assert_allclose(grid, 4 * np.eye(4), atol=1e-6)


def test_cells_without_the_hand_are_unknown():
    rows = np.arange(8) >= 4

    grid = on_grid(directed("left_to_right", np.full((8, 8), 1 / 8), rows=rows), 4)

    assert np.isnan(grid[:2]).all()
    assert_allclose(grid[2:], 1.0, rtol=1e-6)


@pytest.fixture
def summary_of(tiny_dataset, tiny_settings):
    def make(seed=3, dataset=tiny_dataset):
        model = build_model(tiny_settings.model, len(dataset.classes), seed=seed).eval()
        run = LoadedRun(model, tiny_settings, dataset.classes)
        found = inspect_clips(run, dataset, tiny_settings, torch.device("cpu"), {"fusion"})
        return summarise(found, tiny_settings.cmcl, resamples=200, seed=0)

    return make


def test_means_are_those_of_a_plain_loop_and_lie_in_their_intervals(summary_of):
    summary = summary_of()

    assert summary.misplaced == 0.0
    assert len(summary.overall) == 14
    for name, found in summary.overall.items():
        values = [one.values[name] for one in summary.clips if not np.isnan(one.values[name])]
        assert found.clips == len(values) > 0
        assert_allclose(found.mean, sum(values) / len(values))
        assert found.low <= found.mean <= found.high


def test_one_and_two_handed_signs_are_told_apart(summary_of):
    parameters = SynthesisParameters(
        num_glosses=8, num_train_signers=1, num_val_signers=0, num_test_signers=0, repetitions=2
    )
    demo = synthesise(parameters)

    summary = summary_of(dataset=demo.dataset)

    agrees = [
        one.is_two_handed == demo.truth[one.inspected.clip.clip_id].is_two_handed
        for one in summary.clips
    ]
    assert np.mean(agrees) >= 0.8


def test_a_run_compared_with_itself_differs_by_nothing(summary_of):
    same = compare(summary_of(), summary_of())
    other = compare(summary_of(), summary_of(seed=9))

    assert all(found.mean == 0 for found in same.values() if found.clips)
    assert any(found.mean != 0 for found in other.values() if found.clips)


def test_the_json_is_plain(summary_of):
    found = json.loads(json.dumps(summary_json(summary_of()), allow_nan=False))

    assert set(found) == {
        "clips", "ci_unit", "misplaced", "overall", "handedness", "correctness", "glosses",
    }  # fmt: skip
    assert set(found["handedness"]["divergence"]) == {"one_handed", "two_handed", "difference"}
    assert set(found["correctness"]["divergence"]) == {"wrong", "right", "difference"}


BOOTSTRAP = Bootstrap("clip", np.arange(4), 300, 0)
VALUES = np.array([1.0, 2.0, np.nan, 3.0])


def test_an_interval_covers_the_mean_of_known_values():
    found = BOOTSTRAP.mean(VALUES)

    assert (found.mean, found.clips) == (2.0, 3)
    assert 1.0 <= found.low < 2.0 < found.high <= 3.0
    nothing = BOOTSTRAP.mean(np.full(4, np.nan))
    assert nothing.to_json() == {"mean": None, "ci95": None, "clips": 0}


def test_a_difference_of_groups_is_that_of_their_means():
    found = BOOTSTRAP.difference(VALUES, np.array([1, 1, 0, 0], bool))

    assert (found.mean, found.clips) == (1.5 - 3.0, 3)
    assert found.low <= found.mean <= found.high
    assert BOOTSTRAP.difference(VALUES, ~np.isnan(VALUES)).clips == 0
