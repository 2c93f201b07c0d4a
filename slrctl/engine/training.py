"""The training loop: a generator of reports that saves nothing and shows nothing."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

from slrctl.core.clip import ClipBatch
from slrctl.core.cmcl.contributions import contributing_clips
from slrctl.core.cmcl.diagnostics import gradient_measures
from slrctl.core.cmcl.loss import LossTerms
from slrctl.core.cmcl.warnings import Streaks, conditions
from slrctl.core.model.siformer import SiFormerOutput
from slrctl.core.seeding import scoped_seed, stable_seed
from slrctl.engine.runtime import arithmetic
from slrctl.engine.schedule import learning_rate
from slrctl.engine.state import TrainingState
from slrctl.engine.validation import validate
from slrctl.errors import TrainingDiverged


class TrainingData(NamedTuple):
    """Where batches come from; a training asks for each epoch from any batch on."""

    training: Callable[[int, int], Iterator[ClipBatch]]
    num_batches: int
    validation: Callable[[], Iterator[ClipBatch]]


class BatchReport(NamedTuple):
    """After every step: the position and the means of the epoch so far.

    `gradients` are what each term asked of the model in this step, where that was measured.
    """

    epoch: int
    batch: int
    num_batches: int
    num_clips: int
    means: dict[str, float | None]
    gradients: dict[str, float]


class EpochReport(NamedTuple):
    """After every epoch: one line of `metrics.jsonl`, and what the user should know of it."""

    epoch: int
    metrics: dict[str, Any]
    is_best: bool
    warnings: list[str]


def train_epochs(state: TrainingState, data: TrainingData) -> Iterator[BatchReport | EpochReport]:
    """Train from where the state stands to the last epoch, changing the state in place.

    The state is consistent at every report, so a caller can save it there and go on later.

    Raises:
        TrainingDiverged: a loss or a gradient became NaN or infinite; the step was not taken.
    """
    settings = state.settings.train
    while state.progress.epoch < settings.epochs:
        epoch, started = state.progress.epoch, time.perf_counter()
        seconds_before = state.progress.seconds
        state.model.train()
        for batch in data.training(epoch, state.progress.step):
            rate = learning_rate(settings, epoch, state.progress.step / data.num_batches)
            gradients = _train_step(state, batch.to(state.device), rate)
            state.progress.seconds = seconds_before + time.perf_counter() - started
            yield BatchReport(
                epoch + 1,
                state.progress.step,
                data.num_batches,
                len(batch),
                {name: state.progress.totals.mean(name) for name in _SHOWN},
                gradients,
            )
        yield _finish_epoch(state, data, epoch)


_SHOWN = ("loss", "classification", "consistency", "alignment", "accuracy")


def _train_step(state: TrainingState, batch: ClipBatch, rate: float) -> dict[str, float]:
    """Take a step; return what was measured of the terms' gradients, in most steps nothing."""
    settings, progress = state.settings.train, state.progress
    measured: dict[str, float] = {}
    draws = stable_seed(state.settings.seed, "dropout", progress.epoch, progress.step)
    with scoped_seed(draws, state.device):
        with arithmetic(settings.precision, state.device):
            output = state.model(
                batch,
                return_attention=state.loss.needs_attention,
                return_features=state.loss.needs_features,
                return_layer_features=state.loss.needs_layer_features,
            )
        terms = state.loss(output, batch, epoch=progress.epoch)
        _stop_if_not_finite(state, terms, batch)
        if state.settings.cmcl.is_on and progress.step % settings.diagnostics_every == 0:
            measured = gradient_measures(terms, list(state.model.parameters()))
        state.optimizer.zero_grad(set_to_none=True)
        terms.total.backward()
    norm = nn.utils.clip_grad_norm_(
        [*state.model.parameters(), *state.loss.parameters()],
        settings.clip_gradient or math.inf,
    )
    if not torch.isfinite(norm):
        raise _diverged(state, "the gradient", norm, batch)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.step()
    _take_in(state, output, terms, batch, float(norm))
    for name, value in measured.items():
        progress.totals.add(name, value, 1)
    progress.step += 1
    return measured


_GRADIENTS = (
    "gradient_norm_classification",
    "gradient_norm_consistency",
    "gradient_norm_alignment",
    "gradient_cosine_consistency",
    "gradient_cosine_alignment",
)


def _take_in(
    state: TrainingState, output: SiFormerOutput, terms: LossTerms, batch: ClipBatch, norm: float
) -> None:
    """Add a step to the epoch's totals, each term weighed by the clips it is a mean over."""
    totals, contributions = state.progress.totals, contributing_clips(batch, state.settings.cmcl)
    is_right = output.logits.detach().argmax(-1) == batch.target
    totals.add("loss", terms.total.item(), len(batch))
    totals.add("classification", terms.classification.item(), len(batch))
    totals.add("accuracy", is_right.float().mean().item(), len(batch))
    totals.add("gradient_norm", norm, 1)
    totals.add("contributing_share", contributions.consistency / len(batch), len(batch))
    if terms.consistency is not None:
        totals.add("consistency", terms.consistency.item(), contributions.consistency)
    if terms.alignment is not None:
        totals.add("alignment", terms.alignment.item(), contributions.alignment)


def _finish_epoch(state: TrainingState, data: TrainingData, epoch: int) -> EpochReport:
    progress, totals = state.progress, state.progress.totals
    validation = validate(state.model, state.loss, data.validation(), state.device, epoch)
    accuracy, loss = validation["val_accuracy"], validation["val_classification"]
    is_best = progress.is_improved_by(accuracy, loss)
    if is_best:
        progress.best_epoch = epoch + 1
        progress.best_accuracy, progress.best_loss = accuracy, loss
    clips = totals.counts["loss"]
    seconds = progress.seconds
    metrics = {
        "epoch": epoch + 1,
        "is_best": is_best,
        **{f"train_{name}": totals.mean(name) for name in _SHOWN},
        "train_contributing_share": totals.mean("contributing_share"),
        **validation,
        "lambda_consistency": state.loss.factor(epoch) * state.settings.cmcl.lambda_consistency,
        "lambda_alignment": state.loss.factor(epoch) * state.settings.cmcl.lambda_alignment,
        # Of the epoch's first step: the last step's would be 0 at the end of a cosine.
        "learning_rate": learning_rate(state.settings.train, epoch, 0.0),
        "gradient_norm": totals.mean("gradient_norm"),
        **{name: totals.mean(name) for name in _GRADIENTS},
        "seconds": seconds,
        "clips_per_second": clips / seconds if seconds else None,
    }
    streaks = Streaks(progress.streaks)
    warnings = streaks.take_in(conditions(metrics))
    progress.streaks = streaks.lengths
    progress.epoch, progress.step, progress.seconds = epoch + 1, 0, 0.0
    progress.totals = type(totals)()
    return EpochReport(epoch + 1, metrics, is_best, warnings)


def _stop_if_not_finite(state: TrainingState, terms: LossTerms, batch: ClipBatch) -> None:
    if torch.isfinite(terms.total):
        return
    for name in ("classification", "consistency", "alignment"):
        term = getattr(terms, name)
        if term is not None and not torch.isfinite(term):
            raise _diverged(state, f"the {name} term", term, batch)
    raise _diverged(state, "the sum of the terms", terms.total, batch)


def _diverged(
    state: TrainingState, what: str, value: torch.Tensor, batch: ClipBatch
) -> TrainingDiverged:
    lambdas = "--lambda-consistency, --lambda-alignment or " if state.settings.cmcl.is_on else ""
    return TrainingDiverged(
        f"epoch {state.progress.epoch + 1}, step {state.progress.step + 1}: {what} is "
        f"{value.item()}, which must be finite; lower {lambdas}--learning-rate, "
        f"and look at the clips of the batch: {', '.join(batch.clip_ids)}"
    )
