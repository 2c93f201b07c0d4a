"""Measure how large lambdas must be for the terms of CMCL to steer the model at all."""

import statistics
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import ValidationError

from slrctl.core.data.splits import Splits
from slrctl.core.devices import choose_device, deterministic
from slrctl.errors import UsageError
from slrctl.layers import CMCL_PRESETS
from slrctl.settings import Settings, merge
from slrctl.training.loop import BatchReport, train_epochs
from slrctl.training.run_batches import training_data
from slrctl.training.state import TrainingState

SHARES = (0.01, 0.03, 0.1)
"""Shares of the cross-entropy's gradient that lambdas are reported for."""
MEASURED_EVERY = 5


class TermScale(NamedTuple):
    """How a term's gradient compares with the cross-entropy's.

    `ratio` is the median over the steps measured of the norm at lambda 1 over the cross-entropy's,
    `cosine` the median cosine of both; `lambdas` give, for each share, the lambda at which the
    term's gradient has that share. They are None where no step had a gradient of the term.
    """

    ratio: float | None
    cosine: float | None
    lambdas: dict[float, float | None]


class LambdaReport(NamedTuple):
    """The scales of both terms, and the number of steps they were measured in."""

    consistency: TermScale
    alignment: TermScale
    steps: int
    measured: int

    @property
    def terms(self) -> dict[str, TermScale]:
        return {"consistency": self.consistency, "alignment": self.alignment}

    def to_json(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "measured": self.measured,
            **{
                name: {
                    "gradient_ratio": scale.ratio,
                    "cosine": scale.cosine,
                    "lambdas": {f"{share:g}": value for share, value in scale.lambdas.items()},
                }
                for name, scale in self.terms.items()
            },
        }


def find_lambdas(
    settings: Settings, splits: Splits, *, steps: int = 200
) -> Iterator[BatchReport | LambdaReport]:
    """Train for some steps, measuring gradients in every fifth, and write nothing.

    The training is the one the settings describe, cut short; a lambda that is 0 is taken from the
    balanced preset, for a term is measured while it is at work. The first half of the
    measurements is left out of the medians: at the start attention is nearly uniform and the
    gradients are large.

    Raises:
        UsageError: the settings describe a model or a training that CMCL cannot be part of.
    """
    settings = _with_both_terms(settings)
    measured: dict[str, list[float]] = defaultdict(list)
    with deterministic():
        device = choose_device(settings.train.device)
        state = TrainingState.initial(settings, splits.train.classes, device)
        done = 0
        for report in train_epochs(state, training_data(settings, splits)):
            if not isinstance(report, BatchReport):
                continue
            done += 1
            _note(measured, report.gradients, state, report.epoch - 1)
            yield report
            if done == steps:
                break
    late = {name: values[len(values) // 2 :] for name, values in measured.items()}
    yield LambdaReport(
        _scale(late, "consistency"),
        _scale(late, "alignment"),
        done,
        len(late.get("consistency", [])),
    )


def _with_both_terms(settings: Settings) -> Settings:
    balanced = CMCL_PRESETS["balanced"]
    lambdas = {
        name: getattr(settings.cmcl, name) or balanced[name]
        for name in ("lambda_consistency", "lambda_alignment")
    }
    changes = {"cmcl": lambdas, "train": {"diagnostics_every": MEASURED_EVERY}}
    try:
        return Settings.model_validate(merge(settings.model_dump(), changes))
    except ValidationError as error:
        # The rule that is broken; its advice is to switch off CMCL, which nobody switched on.
        rule = error.errors()[0]["msg"].removeprefix("Value error, ").split(";")[0]
        raise UsageError(
            f"--find-lambdas trains with both terms of CMCL: {rule}; change that, or leave "
            "--find-lambdas out"
        ) from None


def _note(
    measured: dict[str, list[float]], gradients: dict[str, float], state: TrainingState, epoch: int
) -> None:
    own = gradients.get("gradient_norm_classification")
    if not own:
        return
    factor, cmcl = state.loss.factor(epoch), state.settings.cmcl
    for name, lambda_ in (
        ("consistency", cmcl.lambda_consistency),
        ("alignment", cmcl.lambda_alignment),
    ):
        measured[name].append(gradients[f"gradient_norm_{name}"] / (factor * lambda_ * own))
        measured[f"{name} cosine"].append(gradients[f"gradient_cosine_{name}"])


def _scale(measured: dict[str, list[float]], name: str) -> TermScale:
    if not measured.get(name):
        return TermScale(None, None, dict.fromkeys(SHARES))
    ratio = statistics.median(measured[name])
    cosine = statistics.median(measured[f"{name} cosine"])
    return TermScale(ratio, cosine, {share: share / ratio if ratio else None for share in SHARES})
