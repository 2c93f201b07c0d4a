"""One training step: gradients of the micro-batches of a batch, added up, and the update.

Micro-batches are computed side by side in threads of a CPU, one after the other under
`train.accumulate`, and in several processes. Each divides its sums by the counts of the whole
batch, so in all cases the gradients add up to those of the batch computed at once.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from slrctl.core.cmcl.alignment import ClipFacts, Contrast
from slrctl.core.cmcl.diagnostics import gradient_measures
from slrctl.core.cmcl.loss import CrossModalConsistencyLoss
from slrctl.core.data.batches import MicroBatch
from slrctl.core.devices import arithmetic, map_on, one_thread
from slrctl.core.model.siformer import SiFormerOutput
from slrctl.core.seeding import scoped_seed, stable_seed
from slrctl.errors import TrainingDiverged
from slrctl.training.processes import ProcessGroup
from slrctl.training.state import TrainingState


class GradientRow:
    """A sum of gradients of some parameters, in one row of memory that processes exchange.

    `views` are its parts in the shapes of the parameters; `reached` counts the gradients that each
    parameter got.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        sizes = [parameter.numel() for parameter in parameters]
        device = parameters[0].device
        # In double precision the sum hardly depends on how a batch was cut; Apple's GPUs have none.
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.row = torch.zeros(sum(sizes) + len(sizes), dtype=dtype, device=device)
        self.gradient, self.reached = self.row.split([sum(sizes), len(sizes)])
        parts = zip(self.gradient.split(sizes), parameters, strict=True)
        self.views = [part.view_as(parameter) for part, parameter in parts]

    def add(self, gradients: Sequence[Tensor | None]) -> None:
        """Add the gradients of a micro-batch, None for parameters that it does not reach."""
        for view, gradient in zip(self.views, gradients, strict=True):
            if gradient is not None:
                view += gradient
        self.reached += self.row.new_tensor([gradient is not None for gradient in gradients])

    def norm(self) -> float:
        """Return the length of the gradient, to the bit whatever the number of threads."""
        with one_thread():
            return float(self.gradient.norm())


class Step(NamedTuple):
    """The clips of a step, of all ranks, and measures of the terms' gradients if it took any."""

    num_clips: int
    gradients: dict[str, float]


def train_step(
    state: TrainingState,
    micro_batches: Sequence[MicroBatch],
    learning_rate: float,
    group: ProcessGroup,
) -> Step:
    """Take a step over a batch, of which each rank has some micro-batches, or none.

    Raises:
        TrainingDiverged: the loss or the gradient is NaN or infinite; the step was not taken.
    """
    settings, loss, step = state.settings, state.loss, state.progress.step
    is_measured = settings.cmcl.is_on and step % settings.train.diagnostics_every == 0
    micro_batches = [MicroBatch(one.index, one.clips.to(state.device)) for one in micro_batches]
    is_cut = group.size > 1 or len(micro_batches) > 1
    contrasts = _contrasts(state, micro_batches, group) if loss.is_contrastive and is_cut else {}
    counts = _count_clips(loss, micro_batches, contrasts, group)

    names = ["loss", *loss.trained_terms, "correct"]
    values = torch.zeros(len(names), dtype=torch.float64)
    total, of_model = GradientRow(state.parameters), list(state.model.parameters())
    of_terms = {name: GradientRow(of_model) for name in loss.trained_terms if is_measured}
    for result in map_on(
        state.device,
        lambda one: _compute(state, one, counts, contrasts.get(one.index), of_terms),
        micro_batches,
        at_once=math.ceil(len(micro_batches) / settings.train.accumulate),
    ):
        values += torch.tensor([result.values[name] for name in names])
        total.add(result.gradients)
        for name, gradients in result.of_terms.items():
            of_terms[name].add(gradients)

    means = dict(zip(names, group.sum(values).tolist(), strict=True))
    _stop_if_not_finite(state, means, micro_batches, group)
    for row in (total, *of_terms.values()):
        row.row.copy_(group.sum(row.row))
    with record_function("optimizer"):
        norm = total.norm()
        if not math.isfinite(norm):
            raise _diverged(state, "the gradient", norm, micro_batches, group)
        _update(state, total, learning_rate, norm)
    measures = {}
    if is_measured:
        with one_thread():
            measures = gradient_measures({name: row.gradient for name, row in of_terms.items()})
    _log(state, means, counts, {"gradient_norm": norm, **measures})
    return Step(counts["classification"][0], measures)


class _MicroStep(NamedTuple):
    values: dict[str, float]
    gradients: Sequence[Tensor | None]
    of_terms: Mapping[str, Sequence[Tensor | None]]


def _compute(
    state: TrainingState,
    micro_batch: MicroBatch,
    counts: Mapping[str, Sequence[int]],
    contrast: Contrast | None,
    measured: Iterable[str],
) -> _MicroStep:
    """Compute the summands of a micro-batch; of the measured terms the gradients apart, too."""
    clips, epoch, of_model = micro_batch.clips, state.progress.epoch, [*state.model.parameters()]
    with scoped_seed(_dropout_seed(state, micro_batch.index), state.device):
        output = _forward(state, micro_batch)
        with record_function("loss"):
            terms = state.loss(output, clips, epoch=epoch, counts=counts, contrast=contrast)
        of_terms = {
            name: torch.autograd.grad(
                terms.lambdas[name] * terms.terms[name],
                of_model,
                retain_graph=True,
                allow_unused=True,
            )
            for name in measured
        }
        with record_function("backward"):
            gradients = torch.autograd.grad(terms.total, state.parameters, allow_unused=True)
    correct = (output.logits.argmax(-1) == clips.target).sum()
    values = {"loss": terms.total, **terms.terms, "correct": correct}
    numbers = torch.stack([value.detach().double() for value in values.values()]).tolist()
    return _MicroStep(dict(zip(values, numbers, strict=True)), gradients, of_terms)


def _forward(state: TrainingState, micro_batch: MicroBatch) -> SiFormerOutput:
    loss = state.loss
    with arithmetic(state.settings, state.device), record_function("forward"):
        return state.model(
            micro_batch.clips,
            return_hand_attention=loss.needs_attention,
            return_features=loss.needs_features,
            return_layer_features=loss.needs_layer_features,
        )


def _dropout_seed(state: TrainingState, index: int) -> int:
    """Derive a seed from the micro-batch's index, not from the rank or thread."""
    names = (state.settings.seed, "dropout", state.progress.epoch, state.progress.step)
    return stable_seed(*names, *([index] if index else []))


def _contrasts(
    state: TrainingState, micro_batches: Sequence[MicroBatch], group: ProcessGroup
) -> dict[int, Contrast]:
    """Compare the clips of all micro-batches, for which the model runs without a gradient first."""
    loss, device = state.loss, state.device

    @torch.no_grad()
    def embed(micro_batch: MicroBatch) -> tuple[int, Tensor, list[Tensor]]:
        with scoped_seed(_dropout_seed(state, micro_batch.index), device):
            output = _forward(state, micro_batch)
        facts = [fact.cpu() for fact in ClipFacts.of(micro_batch.clips)]
        return micro_batch.index, loss.embeddings(output, micro_batch.clips).cpu(), facts

    own = list(map_on(device, embed, micro_batches))
    indices, scales, facts = zip(*sorted(group.gather(own), key=itemgetter(0)), strict=True)
    clips = ClipFacts(*(torch.cat(column).to(device) for column in zip(*facts, strict=True)))
    whole = Contrast.of_batch(torch.cat(scales, dim=2).to(device), clips, state.settings.cmcl)
    ends = itertools.accumulate(one.shape[2] for one in scales)
    places = itertools.starmap(slice, itertools.pairwise((0, *ends)))
    return {index: whole.of_clips(place) for index, place in zip(indices, places, strict=True)}


def _count_clips(
    loss: CrossModalConsistencyLoss,
    micro_batches: Sequence[MicroBatch],
    contrasts: Mapping[int, Contrast],
    group: ProcessGroup,
) -> dict[str, list[int]]:
    """Count the clips of the whole batch that contribute to each mean of each term."""
    names = list(dict.fromkeys([*loss.trained_terms, "consistency"]))  # which is always logged
    sizes = [loss.num_means(name) for name in names]
    counts = torch.zeros(sum(sizes), dtype=torch.int64)
    for one in micro_batches:
        contrast = contrasts.get(one.index)
        masks = [mask for name in names for mask in loss.contributing(name, one.clips, contrast)]
        counts += torch.stack(masks).sum(-1).cpu()
    by_name = group.sum(counts).split(sizes)
    return {name: part.tolist() for name, part in zip(names, by_name, strict=True)}


def _update(state: TrainingState, total: GradientRow, learning_rate: float, norm: float) -> None:
    """Clip the gradient and change every parameter that it reached."""
    largest = state.settings.train.clip_gradient
    if largest and norm > largest:
        total.gradient *= largest / (norm + 1e-6)  # as torch.nn.utils.clip_grad_norm_ does
    reached = total.reached.tolist()
    for parameter, gradient, count in zip(state.parameters, total.views, reached, strict=True):
        parameter.grad = gradient.to(parameter) if count else None
    state.optimizer.param_groups[0]["lr"] = learning_rate
    state.optimizer.step()


def _log(
    state: TrainingState,
    means: Mapping[str, float],
    counts: Mapping[str, Sequence[int]],
    measures: Mapping[str, float],
) -> None:
    """Add a step to the epoch's totals, each term weighted by the clips it is a mean over."""
    totals, (num_clips,) = state.progress.totals, counts["classification"]
    totals.add("loss", means["loss"], num_clips)
    totals.add("accuracy", means["correct"] / num_clips, num_clips)
    totals.add("contributing_share", max(counts["consistency"]) / num_clips, num_clips)
    for name in state.loss.trained_terms:
        totals.add(name, means[name], max(counts[name]))
    for name, value in measures.items():
        totals.add(name, value, 1)
    state.progress.step += 1


def _stop_if_not_finite(
    state: TrainingState,
    means: Mapping[str, float],
    micro_batches: Sequence[MicroBatch],
    group: ProcessGroup,
) -> None:
    if math.isfinite(means["loss"]):
        return
    for name in state.loss.trained_terms:
        if not math.isfinite(means[name]):
            raise _diverged(state, f"the {name} term", means[name], micro_batches, group)
    raise _diverged(state, "the sum of the terms", means["loss"], micro_batches, group)


def _diverged(
    state: TrainingState,
    what: str,
    value: float,
    micro_batches: Sequence[MicroBatch],
    group: ProcessGroup,
) -> TrainingDiverged:
    lambdas = "--lambda-consistency, --lambda-alignment or " if state.settings.cmcl.is_on else ""
    clip_ids = [clip_id for one in micro_batches for clip_id in one.clips.clip_ids]
    return TrainingDiverged(
        f"epoch {state.progress.epoch + 1}, step {state.progress.step + 1}: {what} is "
        f"{value}, which must be finite; lower {lambdas}--learning-rate, "
        f"and look at the clips of the batch: {', '.join(group.gather(clip_ids))}"
    )
