"""The whole state of a training, as one object that can be saved and put back.

Every random draw follows from the seed and the position (epoch, step, clip id), so the position is
all there is to save of the generators.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim.adamw import adamw

from slrctl.core.cmcl.loss import CrossModalConsistencyLoss, build_loss
from slrctl.core.devices import has_cpu_kernels, map_on, one_thread, settled
from slrctl.core.model import SiFormer, Spoter, build_model
from slrctl.core.model.cpu import use_kernels
from slrctl.runs.checkpoint import check_tensor, load_module, named_tensors
from slrctl.settings import Settings

_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


class AdamW:
    """Weights, and for each one that had a gradient the moments of its gradients so far.

    `moments` has under each weight `exp_avg` and `exp_avg_sq`, of the weight's shape, and `step`,
    the number of updates.
    """

    def __init__(self, weights: Iterable[nn.Parameter], weight_decay: float) -> None:
        self.weights = list(weights)
        self.moments: dict[nn.Parameter, dict[str, Tensor]] = {}
        self.weight_decay = weight_decay

    def forget_gradients(self) -> None:
        for weight in self.weights:
            weight.grad = None

    @torch.no_grad()
    def gradient_norm(self) -> float:
        """The length of the gradient of all weights in one row, whatever the number of threads."""
        with one_thread():
            return float(get_total_norm([w.grad for w in self.weights if w.grad is not None]))

    def step(self, rate: float, norm: float, largest_norm: float = math.inf) -> None:
        """Change every weight that has a gradient, in place, and shorten gradients before.

        Args:
            rate: the learning rate.
            norm: `gradient_norm`.
            largest_norm: to which a longer gradient is scaled down.
        """
        reached = [weight for weight in self.weights if weight.grad is not None]
        for weight in reached:
            if weight not in self.moments:
                self.moments[weight] = _no_moments(weight)

        @torch.no_grad()
        def update(share: Sequence[nn.Parameter]) -> None:
            if norm + 1e-6 > largest_norm:  # which torch adds too
                clip_grads_with_norm_(share, largest_norm, torch.tensor(norm))
            moments = [self.moments[weight] for weight in share]
            adamw(
                [*share],
                # The update goes through memory as the weight lies, whatever the strides.
                [weight.grad.contiguous() for weight in share if weight.grad is not None],
                [own["exp_avg"] for own in moments],
                [own["exp_avg_sq"] for own in moments],
                [],
                [own["step"] for own in moments],
                fused=_is_fused(share[0].device),
                amsgrad=False,
                beta1=_BETAS[0],
                beta2=_BETAS[1],
                lr=rate,
                weight_decay=self.weight_decay,
                eps=_EPSILON,
                maximize=False,
            )

        if reached:
            for _ in map_on(reached[0].device, update, _shares(reached)):
                pass

    def put_back(self, weight: nn.Parameter, key: str, value: Tensor) -> None:
        """Restore a moment that was saved of this weight."""
        is_number_of_updates = key == "step" and not _is_fused(weight.device)
        place = value if is_number_of_updates else value.to(weight.device)
        self.moments.setdefault(weight, {})[key] = place.clone()


def _shares(weights: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """About as many elements for each thread of a CPU; the weights of a model come in kinds."""
    is_shared_out = weights[0].device.type == "cpu"
    num_shares = min(torch.get_num_threads(), len(weights)) if is_shared_out else 1
    by_size = sorted(weights, key=lambda weight: -weight.numel())
    return [by_size[first::num_shares] for first in range(num_shares)]


def _is_fused(device: torch.device) -> bool:
    """Whether torch has one operation for the update there."""
    return device.type in ("cpu", "cuda")


def _no_moments(weight: nn.Parameter) -> dict[str, Tensor]:
    # The fused update wants the number of updates where the weights are.
    place = weight.device if _is_fused(weight.device) else torch.device("cpu")
    return {
        "step": torch.zeros((), dtype=torch.float32, device=place),
        "exp_avg": torch.zeros_like(weight, memory_format=torch.preserve_format),
        "exp_avg_sq": torch.zeros_like(weight, memory_format=torch.preserve_format),
    }


@dataclass
class EpochTotals:
    """Sums over the batches of an unfinished epoch; a mean is a sum over its count."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, mean: float, count: float) -> None:
        """Take in the mean of `count` things."""
        if count:
            self.sums[name] = self.sums.get(name, 0.0) + mean * count
            self.counts[name] = self.counts.get(name, 0.0) + count

    def mean(self, name: str) -> float | None:
        """The mean so far; None where nothing was taken in."""
        return self.sums[name] / self.counts[name] if self.counts.get(name) else None


@dataclass
class Progress:
    """Where a training stands: whole epochs, batches of the one under way, the best one."""

    epoch: int = 0
    step: int = 0
    best_epoch: int | None = None
    best_accuracy: float = -1.0
    best_error: float = 0.0
    """The standard error of the best accuracy."""
    best_loss: float = float("inf")
    """The lowest of the epochs that have the best accuracy."""
    improved_epoch: int | None = None
    """When accuracy, or the loss at the best accuracy, was better than ever; patience waits on."""
    seconds: float = 0.0
    totals: EpochTotals = field(default_factory=EpochTotals)
    streaks: dict[str, int] = field(default_factory=dict)
    """For each condition worth a warning, the epochs in a row it has lasted."""

    @classmethod
    def read(cls, values: Mapping[str, Any], num_epochs: int) -> Self:
        """What `asdict` gave, from a file.

        Raises:
            ValueError: it is something else, or beyond the epochs of the training.
        """
        if not values.keys() & {"improved_epoch", "best_error"}:
            # Of when the best epoch was the peak: until there is a higher one, it is again.
            values = {**values, "improved_epoch": values.get("best_epoch"), "best_error": 0.0}
        if values.keys() != cls.__dataclass_fields__.keys():
            raise ValueError(f"progress tells of {', '.join(map(str, values))}")
        # As JSON, of which strictness takes an object for a data class.
        progress = TypeAdapter(cls).validate_json(json.dumps(values), strict=True)
        best, improved = progress.best_epoch, progress.improved_epoch
        if not (
            0 <= progress.epoch <= num_epochs
            and progress.step >= 0
            and (progress.step > 0) == bool(progress.totals.counts)
            and (best is None) == (improved is None)
            and (best is None or 1 <= (improved or 0) <= best <= progress.epoch)
        ):
            raise ValueError(
                f"epoch {progress.epoch}, step {progress.step}, best epoch {best}, improved in "
                f"{improved}, of {num_epochs}"
            )
        return progress

    def take_in(self, epoch: int, *, accuracy: float, error: float, loss: float) -> bool:
        """Take in the validation of an epoch; say whether it is the best one so far.

        After the one-standard-error rule (Breiman et al. 1984, Classification and Regression Trees,
        sec. 3.4.3) every epoch is as good as the best within that accuracy's standard error. They
        take the simplest tree of those; here it is the last epoch, for while the rate is high the
        accuracy of few clips goes up and down, and its peaks are chance.

        Args:
            epoch: counted from 1.
            accuracy: of the validation clips, 0 to 1.
            error: the standard error of that accuracy.
            loss: their mean cross-entropy.
        """
        if (accuracy, -loss) > (self.best_accuracy, -self.best_loss):
            self.improved_epoch = epoch
            self.best_accuracy, self.best_error, self.best_loss = accuracy, error, loss
        if accuracy < self.best_accuracy - self.best_error:
            return False
        self.best_epoch = epoch
        return True


@dataclass
class TrainingState:
    """Model, loss, optimizer and progress of one training."""

    settings: Settings
    classes: tuple[str, ...]
    device: torch.device
    model: SiFormer | Spoter
    loss: CrossModalConsistencyLoss
    optimizer: AdamW
    progress: Progress

    @classmethod
    def initial(cls, settings: Settings, classes: tuple[str, ...], device: torch.device) -> Self:
        """A training before its first step; its settings name the precision it takes."""
        settings = settled(settings, device)
        model = build_model(settings.model, len(classes), seed=settings.seed).to(device)
        if has_cpu_kernels(settings, device):
            use_kernels(model, settings.train.precision)
        loss = build_loss(settings).to(device)
        weights = (*model.parameters(), *loss.parameters())
        optimizer = AdamW(weights, settings.train.weight_decay)
        return cls(settings, classes, device, model, loss, optimizer, Progress())

    @property
    def is_over(self) -> bool:
        """Whether no epoch is left, or none has been better for as long as patience lasts."""
        settings, progress = self.settings.train, self.progress
        improved = progress.improved_epoch
        waited = 0 if improved is None else progress.epoch - improved
        return progress.epoch >= settings.epochs or 0 < settings.patience <= waited

    def tensors(self) -> dict[str, Tensor]:
        """Everything with a shape, under readable names."""
        saved = named_tensors(model=self.model, loss=self.loss)
        for name, parameter in self._parameters():
            for key, value in self.optimizer.moments.get(parameter, {}).items():
                saved[f"optimizer.{key}.{name}"] = value
        return saved

    def progress_json(self) -> dict[str, Any]:
        """Everything else, fit for JSON."""
        return asdict(self.progress)

    def restore(self, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
        """Put back what `tensors` and `progress_json` gave; the next step is then the same one.

        Raises:
            ValueError: they are not of a training with these settings.
        """
        self.progress = Progress.read(progress, self.settings.train.epochs)
        load_module(self.model, tensors, "model")
        load_module(self.loss, tensors, "loss")
        for name, parameter in self._parameters():
            for key in ("step", "exp_avg", "exp_avg_sq"):
                value = tensors.get(f"optimizer.{key}.{name}")
                if value is not None:
                    # The optimizer goes through memory without a look at shapes.
                    expected = torch.empty(()) if key == "step" else parameter.detach()
                    check_tensor(f"optimizer.{key}.{name}", value, expected)
                    self.optimizer.put_back(parameter, key, value)

    def _parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        return [
            *((f"model.{name}", parameter) for name, parameter in self.model.named_parameters()),
            *((f"loss.{name}", parameter) for name, parameter in self.loss.named_parameters()),
        ]
