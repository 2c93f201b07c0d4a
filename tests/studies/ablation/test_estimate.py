"""About how long a study takes, told before it runs."""

import pytest

from slrctl.layers import Layer
from slrctl.studies.ablation import estimate as module
from slrctl.studies.ablation.estimate import estimate_seconds
from slrctl.studies.ablation.study import Study
from slrctl.studies.ablation.trials import Fold, plan_trials

DIVERGING = {"train": {"learning_rate": 1e30, "clip_gradient": 0.0}, "cmcl": {"preset": "balanced"}}


@pytest.fixture
def planned(tiny_settings):
    def plan(variants):
        below = [Layer("tiny", tiny_settings.model_dump(include={"model", "train", "evaluate"}))]
        return plan_trials(Study("s", variants, None), [1], [Fold(None, {})], below, [])

    return plan


def test_a_variant_that_diverges_is_timed_by_the_steps_it_took(planned, tiny_splits):
    trials = planned({"ill": DIVERGING})

    seconds = estimate_seconds(trials, tiny_splits, jobs=1, threads=1)

    assert seconds is not None
    assert seconds > 0


@pytest.mark.parametrize(("timed", "expected"), [([None, 0.5], True), ([None, None], False)])
def test_one_that_takes_no_step_is_timed_by_another_variant(
    planned, tiny_splits, monkeypatch, timed, expected
):
    trials = planned({"well": {}, "ill": DIVERGING})
    left = iter(timed)
    monkeypatch.setattr(module, "_step_seconds", lambda *_: next(left))

    seconds = estimate_seconds(trials, tiny_splits, jobs=1, threads=1)

    assert (seconds is not None) == expected
