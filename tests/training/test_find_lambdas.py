"""A short training that says how large lambdas must be."""

import pytest

from slrctl.core.cmcl.diagnostics import gradient_measures
from slrctl.errors import UsageError
from slrctl.settings import Settings
from slrctl.training import find_lambdas as module
from slrctl.training.find_lambdas import SHARES, LambdaReport, find_lambdas
from slrctl.training.loop import BatchReport


@pytest.fixture
def settings(tiny_settings):
    return Settings.layered(tiny_settings.model_dump(), {"train": {"epochs": 8}})


def test_at_the_lambda_reported_a_terms_gradient_has_that_share(settings, tiny_splits, monkeypatch):
    seen = []

    def recorded(gradients):
        seen.append(gradient_measures(gradients))
        return seen[-1]

    monkeypatch.setattr("slrctl.training.step.gradient_measures", recorded)
    *batches, report = find_lambdas(settings, tiny_splits, steps=16)

    assert isinstance(report, LambdaReport)
    assert len(batches) == report.steps == 16
    late = seen[-report.measured :]
    for name, at_work in (("consistency", 0.1), ("alignment", 0.05)):
        ratios = sorted(
            m[f"gradient_norm_{name}"] / m["gradient_norm_classification"] / at_work for m in late
        )
        middle = (ratios[(len(ratios) - 1) // 2] + ratios[len(ratios) // 2]) / 2
        scale = report.scales[name]
        for share in SHARES:
            assert scale.lambdas[share] * middle == pytest.approx(share)


def test_it_is_measured_under_the_lambdas_and_forms_the_user_gave(settings, tiny_splits):
    given = Settings.layered(
        settings.model_dump(), {"cmcl": {"lambda_consistency": 0.7, "consistency": "cycle"}}
    )

    kl = list(find_lambdas(settings, tiny_splits, steps=8))[-1]
    cycle = list(find_lambdas(given, tiny_splits, steps=8))[-1]

    assert isinstance(kl, LambdaReport)
    assert isinstance(cycle, LambdaReport)
    assert cycle.scales["consistency"].ratio != kl.scales["consistency"].ratio


def test_every_fifth_step_is_measured_and_a_short_training_says_how_many_it_had(
    settings, tiny_splits
):
    *batches, report = find_lambdas(settings, tiny_splits, steps=100)

    # The count begins again with every epoch, here of two steps.
    has_gradients = [bool(b.gradients) for b in batches if isinstance(b, BatchReport)]
    assert module.MEASURED_EVERY == 5
    assert has_gradients == [True, False] * 8
    assert isinstance(report, LambdaReport)
    assert (report.steps, report.measured) == (16, 4)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"model": {"cross_attention": False}}, "model.cross_attention is false"),
        ({"model": {"name": "spoter"}}, "model.name 'spoter' has one"),
    ],
)
def test_what_cmcl_cannot_be_part_of_is_refused_by_its_rule(settings, tiny_splits, changes, rule):
    given = Settings.layered(settings.model_dump(), changes)

    with pytest.raises(UsageError, match=rule) as refused:
        next(find_lambdas(given, tiny_splits))

    assert "--cmcl off" not in str(refused.value)
