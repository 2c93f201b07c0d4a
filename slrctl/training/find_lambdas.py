"""A measurement of the lambdas at which the terms of CMCL steer the model."""

import statistics
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import ValidationError

from slrctl.core.data.splits import Splits
from slrctl.core.devices import choose_device, deterministic
from slrctl.errors import UsageError
from slrctl.layers import CMCL_PRESETS
from slrctl.settings import CMCL_TERMS, Settings, merge
from slrctl.training.loop import BatchReport, TrainingData, train_epochs
from slrctl.training.state import TrainingState

SHARES = (0.01, 0.03, 0.1)
"""Shares of the cross-entropy's gradient that lambdas are reported for."""
MEASURED_EVERY = 5


class TermScale(NamedTuple):
    """The gradient of a term beside that of the cross-entropy.

    `ratio` is the median over the steps measured of the norm at lambda 1 over the cross-entropy's,
    `cosine` the median cosine of both; `lambdas` give, for each share, the lambda at which the
    term's gradient has that share. They are None where no step had a gradient of the term.
    """

    ratio: float | None
    cosine: float | None
    lambdas: dict[float, float | None]

    @classmethod
    def of(cls, ratios: list[float], cosines: list[float]) -> "TermScale":
        """Take the medians of the later half: at first attention is nearly uniform."""
        if not ratios:
            return cls(None, None, dict.fromkeys(SHARES))
        ratio, cosine = (statistics.median(v[len(v) // 2 :]) for v in (ratios, cosines))
        return cls(ratio, cosine, {share: share / ratio if ratio else None for share in SHARES})


class LambdaReport(NamedTuple):
    """The scale of every term of CMCL, the steps taken, and those that count in the medians."""

    scales: dict[str, TermScale]
    steps: int
    measured: int

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
                for name, scale in self.scales.items()
            },
        }


def find_lambdas(
    settings: Settings, splits: Splits, *, steps: int = 200
) -> Iterator[BatchReport | LambdaReport]:
    """Train for some steps, measuring gradients in every fifth, and write nothing.

    The training is the one the settings describe, cut short; a lambda that is 0 is taken from the
    balanced preset, for a term is measured while it is trained. The first half of the measurements
    is left out of the medians: at the start attention is nearly uniform and gradients are large.

    Raises:
        UsageError: the settings describe a model or a training that CMCL cannot be part of.
    """
    settings = _with_all_terms(settings)
    ratios, cosines = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    done = 0
    with deterministic():
        device = choose_device(settings.train.device)
        state = TrainingState.initial(settings, splits.train.classes, device)
        for report in train_epochs(state, TrainingData.of_splits(splits, settings, device)):
            if not isinstance(report, BatchReport):
                continue
            done += 1
            own = report.gradients.get("gradient_norm_classification", 0.0)
            lambdas = state.loss.lambdas(report.epoch - 1)
            for name in CMCL_TERMS if own else ():
                norm = report.gradients[f"gradient_norm_{name}"]
                ratios[name].append(norm / (lambdas[name] * own))
                cosines[name].append(report.gradients[f"gradient_cosine_{name}"])
            yield report
            if done == steps:
                break
    scales = {name: TermScale.of(ratios[name], cosines[name]) for name in CMCL_TERMS}
    num_measured = len(ratios[CMCL_TERMS[0]])
    yield LambdaReport(scales, done, num_measured - num_measured // 2)


def _with_all_terms(settings: Settings) -> Settings:
    lambdas = {f"lambda_{name}": getattr(settings.cmcl, f"lambda_{name}") for name in CMCL_TERMS}
    balanced = CMCL_PRESETS["balanced"]
    lambdas = {name: value or balanced.get(name, 0.1) for name, value in lambdas.items()}
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
