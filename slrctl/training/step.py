"""One training step: gradients of the parts of a batch, added up, and the optimizer's update."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from slrctl.core.clip import ClipBatch, cut_batch
from slrctl.core.cmcl.batch_parts import ClipCounts, TermWeights
from slrctl.core.cmcl.diagnostics import gradient_measures, in_one_row, term_gradients
from slrctl.core.cmcl.loss import LossTerms
from slrctl.core.devices import arithmetic, map_in_threads, one_thread, phase
from slrctl.core.seeding import scoped_seed, stable_seed
from slrctl.errors import TrainingDiverged
from slrctl.training.processes import Workers
from slrctl.training.state import TrainingState

# What clips ask of the weights that they reach.
Gradients = dict[nn.Parameter, Tensor]


class GradientSums:
    """What pieces ask of the weights, added up; a piece need not reach every weight.

    A gradient need not lie in memory as its weight does, and two weights may share one tensor of
    it; so sums have memory of their own, in the order of what they are made of.
    """

    def __init__(self) -> None:
        self._alone: Gradients = {}
        """Of weights that one piece has reached so far, as it gave them."""
        self._sums: Gradients = {}

    def add(self, gradients: Iterable[tuple[nn.Parameter, Tensor | None]]) -> None:
        """Take in the gradients of a piece."""
        there = {weight: gradient for weight, gradient in gradients if gradient is not None}
        known = [weight for weight in there if weight in self._sums]
        if known:
            own = [self._sums[weight] for weight in known]
            torch._foreach_add_(own, [there[weight] for weight in known])  # pyright: ignore[reportPrivateImportUsage]
        second = [weight for weight in there if weight in self._alone]
        if second:
            first = [self._alone.pop(weight) for weight in second]
            sums = torch._foreach_add(first, [there[weight] for weight in second])  # pyright: ignore[reportPrivateImportUsage]
            self._sums.update(zip(second, sums, strict=True))
        self._alone |= {w: g for w, g in there.items() if w not in self._sums}

    def sums(self) -> Gradients:
        """The sums so far, each in memory of its own."""
        return self._sums | {weight: gradient.clone() for weight, gradient in self._alone.items()}


# A batch of so many frames, padding included, is one piece; four times as many are two.
FRAMES_OF_PIECE = 306


class StepModule(nn.Module):
    """Model and loss in one, for both have weights whose gradients several workers share."""

    def __init__(self, state: TrainingState) -> None:
        super().__init__()
        self.model, self.loss = state.model, state.loss
        self.settings, self.device = state.settings, state.device

    def forward(
        self, batch: ClipBatch, epoch: int, weights: TermWeights, workers: Workers
    ) -> tuple[LossTerms, Tensor]:
        """The loss of a part of a batch, and the logits of its clips."""
        with arithmetic(self.settings, self.device), phase("forward"):
            output = self.model(
                batch,
                return_hand_attention=self.loss.needs_attention,
                return_features=self.loss.needs_features,
                return_layer_features=self.loss.needs_layer_features,
            )
        with phase("loss"):
            terms = self.loss(output, batch, epoch=epoch, weights=weights, gather=workers.gather)
        return terms, output.logits


class Step(NamedTuple):
    """What a step showed: clips of all workers, and gradients of the terms where measured."""

    num_clips: int
    gradients: dict[str, float]


class _Piece(NamedTuple):
    """A part of a batch that is computed at once: its number, and what its clips count for."""

    number: int
    clips: ClipBatch
    counts: ClipCounts
    weights: TermWeights


class _PieceGradients(NamedTuple):
    sums: "_Sums"
    of_terms: dict[str, list[Tensor | None]]
    of_weights: list[Tensor | None]


def train_step(
    state: TrainingState,
    module: nn.Module,
    parts: Sequence[ClipBatch],
    rate: float,
    workers: Workers,
) -> Step:
    """Take a step over the parts of a batch that all workers have.

    Raises:
        TrainingDiverged: the loss or the gradient is NaN or infinite; the step was not taken.
    """
    settings, cmcl, progress = state.settings.train, state.settings.cmcl, state.progress
    is_measured = cmcl.is_on and progress.step % settings.diagnostics_every == 0
    parts = [part.to(state.device) for part in parts]
    if workers.count == len(parts) == 1:  # who accumulates wants little at a time
        parts = _cut(parts[0], state)
    counts = [ClipCounts.of(part, cmcl, workers.gather) for part in parts]
    whole = ClipCounts(*map(int, workers.summed(ClipCounts.total(counts))))
    pieces = [
        _Piece(
            number * workers.count + workers.rank,
            part,
            own,
            own.weights_in(whole, cmcl, num_workers=workers.count),
        )
        for number, (part, own) in enumerate(zip(parts, counts, strict=True))
    ]
    state.optimizer.forget_gradients()
    # Only a process that is alone may leave the wrapped module's way of adding gradients up.
    is_shared_out = workers.count == settings.accumulate == 1 < len(pieces)
    add_up = _side_by_side if is_shared_out else _one_by_one
    of_model = list(state.model.parameters()) if is_measured else []
    sums, gradients = add_up(state, module, pieces, workers, of_model)
    with phase("optimizer"):
        norm = state.optimizer.gradient_norm()
        if not math.isfinite(norm):
            raise _diverged(state, "the gradient", norm, parts, workers)
        state.optimizer.step(rate, norm, settings.clip_gradient or math.inf)
    measured = {}
    if is_measured:
        with one_thread() if is_shared_out else nullcontext():
            of_all = {
                name: workers.mean(in_one_row(map(of_term.get, of_model), of_model))
                for name, of_term in gradients.items()
            }
            measured = gradient_measures(of_all)
    _take_in(state, sums, whole, norm, measured)
    return Step(whole.clips, measured)


def _cut(part: ClipBatch, state: TrainingState) -> list[ClipBatch]:
    """Pieces for several threads of a CPU; how many depends on the clips, not on the threads.

    A piece takes some time however short it is, so their number grows slower than the frames.

    The contrastive form tells every clip from all others, so it needs them together.
    """
    if state.device.type != "cpu" or state.settings.cmcl.alignment == "contrastive":
        return [part]
    num_pieces = math.ceil(math.sqrt(part.is_valid.numel() / FRAMES_OF_PIECE))
    return cut_batch(part, min(num_pieces, len(part)))


def _one_by_one(
    state: TrainingState,
    module: nn.Module,
    pieces: Sequence[_Piece],
    workers: Workers,
    of_model: Sequence[nn.Parameter],
) -> tuple["_Sums", dict[str, Gradients]]:
    """Add the gradients of the pieces up in the weights, over all workers.

    Returned is also what each term asks of the weights of the model, where these are given.
    """
    sums, of_terms = _Sums(), defaultdict[str, GradientSums](GradientSums)
    for piece in pieces:
        is_last = piece is pieces[-1]
        # Gradients are exchanged once a step, in the last backward.
        exchange = nullcontext() if is_last else workers.apart(module)
        with scoped_seed(_dropout_seed(state, piece.number), state.device), exchange:
            terms, logits = module(piece.clips, state.progress.epoch, piece.weights, workers)
            sums = sums.plus(_Sums.of(terms, logits, piece.clips))
            if is_last:
                sums = sums.of_all(workers)
                _stop_if_not_finite(state, sums, [p.clips for p in pieces], workers)
            if of_model:
                for name, of_term in term_gradients(terms, of_model).items():
                    of_terms[name].add(zip(of_model, of_term, strict=True))
            with phase("backward"):
                terms.total.backward()
    return sums, {name: of_term.sums() for name, of_term in of_terms.items()}


def _side_by_side(
    state: TrainingState,
    module: nn.Module,
    pieces: Sequence[_Piece],
    workers: Workers,
    of_model: Sequence[nn.Parameter],
) -> tuple["_Sums", dict[str, Gradients]]:
    """The same with threads that take a piece each; sums are taken in the order of the pieces."""
    weights = state.optimizer.weights

    def work(piece: _Piece) -> _PieceGradients:
        with scoped_seed(_dropout_seed(state, piece.number), state.device):
            terms, logits = module(piece.clips, state.progress.epoch, piece.weights, workers)
            of_terms = term_gradients(terms, of_model) if of_model else {}
            with phase("backward"):
                of_weights = torch.autograd.grad(terms.total, weights, allow_unused=True)
        return _PieceGradients(_Sums.of(terms, logits, piece.clips), of_terms, list(of_weights))

    sums, of_terms = _Sums(), defaultdict[str, GradientSums](GradientSums)
    of_weights = GradientSums()
    for piece in map_in_threads(work, pieces):
        sums = sums.plus(piece.sums)
        for name, of_term in piece.of_terms.items():
            of_terms[name].add(zip(of_model, of_term, strict=True))
        of_weights.add(zip(weights, piece.of_weights, strict=True))
        del piece  # or its gradients would stay until the next one is ready
    sums = sums.of_all(workers)
    _stop_if_not_finite(state, sums, [piece.clips for piece in pieces], workers)
    for weight, gradient in of_weights.sums().items():
        weight.grad = gradient
    return sums, {name: of_term.sums() for name, of_term in of_terms.items()}


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

    @classmethod
    def of(cls, terms: LossTerms, logits: Tensor, clips: ClipBatch) -> "_Sums":
        num_clips = len(clips.clip_ids)  # 0 of a stand-in
        right = (logits.detach().argmax(-1) == clips.target)[:num_clips].sum()
        none = torch.zeros_like(terms.total)
        values = (
            terms.total,
            terms.classification,
            none if terms.consistency is None else terms.consistency,
            none if terms.alignment is None else terms.alignment,
            right.to(terms.total.dtype),
        )
        return cls(*torch.stack([value.detach() for value in values]).tolist())

    def plus(self, other: "_Sums") -> "_Sums":
        return _Sums(*(one + more for one, more in zip(self, other, strict=True)))

    def of_all(self, workers: Workers) -> "_Sums":
        """Of the whole batch: means over the workers, and what they have right together."""
        *means, right = workers.summed(self)
        total, classification, consistency, alignment = (value / workers.count for value in means)
        return _Sums(total, classification, consistency, alignment, right)


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
