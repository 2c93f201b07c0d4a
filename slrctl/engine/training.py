"""The training loop: a generator of reports that saves nothing and shows nothing."""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.profiler import record_function

from slrctl.core.clip import ClipBatch
from slrctl.core.cmcl.batch_parts import ClipCounts, TermWeights
from slrctl.core.cmcl.diagnostics import gradient_measures, term_gradients
from slrctl.core.cmcl.loss import LossTerms
from slrctl.core.cmcl.warnings import Streaks, conditions
from slrctl.core.seeding import scoped_seed, stable_seed
from slrctl.engine.runtime import arithmetic
from slrctl.engine.schedule import learning_rate
from slrctl.engine.state import TrainingState
from slrctl.engine.validation import validate
from slrctl.engine.workers import ALONE, Workers
from slrctl.errors import TrainingDiverged

PHASES = ("data", "forward", "loss", "backward", "optimizer")
"""What a step consists of, by the names a profiler sees."""


class TrainingData(NamedTuple):
    """Where batches come from; a training asks for each epoch from any batch on.

    A process gets `train.accumulate` parts of every batch, one after the other; the one that is
    alone and does not accumulate, the whole batches.
    """

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


def train_epochs(
    state: TrainingState, data: TrainingData, workers: Workers = ALONE
) -> Iterator[BatchReport | EpochReport]:
    """Train from where the state stands until it is over, changing the state in place.

    The state is consistent at every report, so a caller can save it there and go on later. Several
    workers, each with its parts of the batches, take the steps that one would take alone, and have
    the same state afterwards.

    Raises:
        TrainingDiverged: a loss or a gradient became NaN or infinite; the step was not taken.
    """
    settings = state.settings.train
    module = workers.wrap(StepModule(state))
    while not state.is_over:
        epoch, started = state.progress.epoch, time.perf_counter()
        seconds_before = state.progress.seconds
        state.model.train()
        batches = data.training(epoch, state.progress.step)
        while parts := list(itertools.islice(batches, settings.accumulate)):
            rate = learning_rate(settings, epoch, state.progress.step / data.num_batches)
            step = _train_step(state, module, parts, rate, workers)
            state.progress.seconds = seconds_before + time.perf_counter() - started
            yield BatchReport(
                epoch + 1,
                state.progress.step,
                data.num_batches,
                step.num_clips,
                {name: state.progress.totals.mean(name) for name in _SHOWN},
                step.gradients,
            )
        yield _finish_epoch(state, data, epoch, workers)


_SHOWN = ("loss", "classification", "consistency", "alignment", "accuracy")


class StepModule(nn.Module):
    """Model and loss in one, for both have weights whose gradients several workers share."""

    def __init__(self, state: TrainingState) -> None:
        super().__init__()
        self.model, self.loss = state.model, state.loss
        self.precision, self.device = state.settings.train.precision, state.device

    def forward(
        self, batch: ClipBatch, epoch: int, weights: TermWeights, workers: Workers
    ) -> tuple[LossTerms, torch.Tensor]:
        """The loss of a part of a batch, and the logits of its clips."""
        with arithmetic(self.precision, self.device), record_function("forward"):
            output = self.model(
                batch,
                return_attention=self.loss.needs_attention,
                return_features=self.loss.needs_features,
                return_layer_features=self.loss.needs_layer_features,
            )
        with record_function("loss"):
            terms = self.loss(output, batch, epoch=epoch, weights=weights, gather=workers.gather)
        return terms, output.logits


class _Step(NamedTuple):
    """What a step showed: clips of all workers, and gradients of the terms where measured."""

    num_clips: int
    gradients: dict[str, float]


def _train_step(
    state: TrainingState,
    module: nn.Module,
    parts: Sequence[ClipBatch],
    rate: float,
    workers: Workers,
) -> _Step:
    """Take a step over the parts of a batch that all workers have."""
    settings, cmcl, progress = state.settings.train, state.settings.cmcl, state.progress
    is_measured = cmcl.is_on and progress.step % settings.diagnostics_every == 0
    parts = [part.to(state.device) for part in parts]
    counts = [ClipCounts.of(part, cmcl, workers.gather) for part in parts]
    whole = ClipCounts(*map(int, workers.summed(ClipCounts.total(counts))))
    state.optimizer.zero_grad(set_to_none=True)
    sums, gradients = _Sums(), dict[str, torch.Tensor]()
    for number, (part, own) in enumerate(zip(parts, counts, strict=True)):
        weights = own.weights_in(whole, cmcl, num_workers=workers.count)
        is_last = number == len(parts) - 1
        draws = _dropout_seed(state, number * workers.count + workers.rank)
        # Gradients are exchanged once a step, in the last backward.
        exchange = nullcontext() if is_last else workers.apart(module)
        with scoped_seed(draws, state.device), exchange:
            terms, logits = module(part, progress.epoch, weights, workers)
            sums = sums.plus(terms, logits, part)
            if is_last:
                sums = sums.of_all(workers)
                _stop_if_not_finite(state, sums, parts, workers)
            if is_measured:
                for name, gradient in term_gradients(terms, list(state.model.parameters())).items():
                    gradients[name] = gradients.get(name, 0.0) + gradient
            with record_function("backward"):
                terms.total.backward()
    with record_function("optimizer"):
        norm = nn.utils.clip_grad_norm_(
            [*state.model.parameters(), *state.loss.parameters()],
            settings.clip_gradient or math.inf,
        )
        if not torch.isfinite(norm):
            raise _diverged(state, "the gradient", float(norm), parts, workers)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        state.optimizer.step()
    measured = {}
    if is_measured:
        of_all = {name: workers.mean(gradient) for name, gradient in gradients.items()}
        measured = gradient_measures(of_all)
    _take_in(state, sums, whole, float(norm), measured)
    return _Step(whole.clips, measured)


def _dropout_seed(state: TrainingState, part: int) -> int:
    """What a part draws follows from its number, whoever computes it."""
    names = (state.settings.seed, "dropout", state.progress.epoch, state.progress.step)
    return stable_seed(*names, *([part] if part else []))


class _Sums(NamedTuple):
    """A step's loss, its terms (0 where not computed) and the clips that are right, added up."""

    total: float = 0.0
    classification: float = 0.0
    consistency: float = 0.0
    alignment: float = 0.0
    right: float = 0.0

    def plus(self, terms: LossTerms, logits: torch.Tensor, part: ClipBatch) -> "_Sums":
        """With a part of the batch."""
        num_clips = len(part.clip_ids)  # 0 of a stand-in
        right = (logits.detach().argmax(-1) == part.target)[:num_clips].sum()
        none = torch.zeros_like(terms.total)
        values = (
            terms.total,
            terms.classification,
            none if terms.consistency is None else terms.consistency,
            none if terms.alignment is None else terms.alignment,
            right.to(terms.total.dtype),
        )
        numbers = torch.stack([value.detach() for value in values]).tolist()
        return _Sums(*(one + other for one, other in zip(self, numbers, strict=True)))

    def of_all(self, workers: Workers) -> "_Sums":
        """Of the whole batch: means over the workers, and what they have right together."""
        *means, right = workers.summed(self)
        total, classification, consistency, alignment = (value / workers.count for value in means)
        return _Sums(total, classification, consistency, alignment, right)


_GRADIENTS = (
    "gradient_norm_classification",
    "gradient_norm_consistency",
    "gradient_norm_alignment",
    "gradient_cosine_consistency",
    "gradient_cosine_alignment",
)


def _take_in(
    state: TrainingState,
    sums: _Sums,
    whole: ClipCounts,
    norm: float,
    measured: dict[str, float],
) -> None:
    """Add a step to the epoch's totals, each term weighed by the clips it is a mean over."""
    totals = state.progress.totals
    totals.add("loss", sums.total, whole.clips)
    totals.add("classification", sums.classification, whole.clips)
    totals.add("accuracy", sums.right / whole.clips, whole.clips)
    totals.add("gradient_norm", norm, 1)
    totals.add("contributing_share", whole.consistent / whole.clips, whole.clips)
    if state.loss.needs_attention:
        totals.add("consistency", sums.consistency, whole.consistent)
    if state.loss.needs_features:
        totals.add("alignment", sums.alignment, whole.alignment)
    for name, value in measured.items():
        totals.add(name, value, 1)
    state.progress.step += 1


def _finish_epoch(
    state: TrainingState, data: TrainingData, epoch: int, workers: Workers
) -> EpochReport:
    progress, totals = state.progress, state.progress.totals
    validation = validate(state.model, state.loss, data.validation(), state.device, epoch, workers)
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


def _stop_if_not_finite(
    state: TrainingState, sums: _Sums, parts: Sequence[ClipBatch], workers: Workers
) -> None:
    if math.isfinite(sums.total):
        return
    for name in ("classification", "consistency", "alignment"):
        value = getattr(sums, name)
        if not math.isfinite(value):
            raise _diverged(state, f"the {name} term", value, parts, workers)
    raise _diverged(state, "the sum of the terms", sums.total, parts, workers)


def _diverged(
    state: TrainingState, what: str, value: float, parts: Sequence[ClipBatch], workers: Workers
) -> TrainingDiverged:
    lambdas = "--lambda-consistency, --lambda-alignment or " if state.settings.cmcl.is_on else ""
    own = [clip_id for part in parts for clip_id in part.clip_ids]
    return TrainingDiverged(
        f"epoch {state.progress.epoch + 1}, step {state.progress.step + 1}: {what} is "
        f"{value}, which must be finite; lower {lambdas}--learning-rate, "
        f"and look at the clips of the batch: {', '.join(workers.names(own))}"
    )
