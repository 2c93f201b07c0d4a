"""The whole state of a training, as one object that can be saved and restored.

Every random draw follows from the seed and the position (epoch, step, clip id), so the position is
all there is to save of the generators.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from slrctl.core.cmcl.loss import CrossModalConsistencyLoss, build_loss
from slrctl.core.devices import resolve_precision
from slrctl.core.model.build import Model, build_model
from slrctl.runs.checkpoint import check_tensor, load_module, named_tensors
from slrctl.settings import Settings


@dataclass
class EpochTotals:
    """Sums over the batches of an unfinished epoch; a mean is a sum over its count."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, mean: float, count: float) -> None:
        """Add the mean of `count` things."""
        if count:
            self.sums[name] = self.sums.get(name, 0.0) + mean * count
            self.counts[name] = self.counts.get(name, 0.0) + count

    def mean(self, name: str) -> float | None:
        """Return the mean so far, None where nothing was added."""
        return self.sums[name] / self.counts[name] if self.counts.get(name) else None


@dataclass
class Progress:
    """The position of a training: whole epochs, batches of the current one, the best epoch."""

    epoch: int = 0
    step: int = 0
    best_epoch: int | None = None
    best_accuracy: float = -1.0
    best_error: float = 0.0
    """The standard error of the best accuracy."""
    best_loss: float = float("inf")
    """The lowest of the epochs that have the best accuracy."""
    improved_epoch: int | None = None
    """The last epoch whose accuracy, or loss at the best accuracy, was better than ever."""
    seconds: float = 0.0
    totals: EpochTotals = field(default_factory=EpochTotals)
    streaks: dict[str, int] = field(default_factory=dict)
    """For each condition worth a warning, the epochs in a row it has lasted."""

    @property
    def position(self) -> str:
        """The place in the training, in words."""
        if self.step:
            return f"after batch {self.step} of epoch {self.epoch + 1}"
        return f"after epoch {self.epoch}"

    @classmethod
    def read(cls, values: Mapping[str, Any], num_epochs: int) -> Self:
        """Read what `asdict` gave, from a file.

        Raises:
            ValueError: it is something else, or beyond the epochs of the training.
        """
        if values.keys() != cls.__dataclass_fields__.keys():
            raise ValueError(f"progress holds {', '.join(map(str, values))}")
        # As JSON, of which strictness takes an object for a data class.
        progress = TypeAdapter(cls).validate_json(json.dumps(values), strict=True)
        is_within = 0 <= progress.epoch <= num_epochs and progress.step >= 0
        if not is_within or (progress.step > 0) != bool(progress.totals.counts):
            raise ValueError(f"epoch {progress.epoch} of {num_epochs}, step {progress.step}")
        return progress

    def judge(self, epoch: int, *, accuracy: float, error: float, loss: float) -> bool:
        """Record the validation of an epoch; return True if it is the best one so far.

        After the one-standard-error rule (Breiman et al. 1984, Classification and Regression Trees,
        sec. 3.4.3) every epoch is as good as the best within that accuracy's standard error. They
        take the simplest tree of those; here it is the last epoch, for while the learning rate is
        high the accuracy of few clips goes up and down, and its peaks are chance.

        Epochs count from 1; `error` is the standard error of the accuracy (0 to 1), `loss` the mean
        cross-entropy.
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
    model: Model
    loss: CrossModalConsistencyLoss
    optimizer: torch.optim.AdamW
    progress: Progress

    @classmethod
    def initial(cls, settings: Settings, classes: tuple[str, ...], device: torch.device) -> Self:
        """Build a training before its first step, with its precision resolved."""
        settings = resolve_precision(settings, device)
        model = build_model(settings.model, len(classes), seed=settings.seed).to(device)
        loss = build_loss(settings).to(device)
        optimizer = torch.optim.AdamW(
            [*model.parameters(), *loss.parameters()],
            lr=settings.train.learning_rate,
            betas=(0.9, 0.999),
            weight_decay=settings.train.weight_decay,
            fused=device.type in ("cpu", "cuda"),
        )
        return cls(settings, classes, device, model, loss, optimizer, Progress())

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All that is trained: the parameters of the model, then those of the loss."""
        return self.optimizer.param_groups[0]["params"]

    @property
    def is_over(self) -> bool:
        """True if no epoch is left, or none was better for as long as patience lasts."""
        settings, progress = self.settings.train, self.progress
        improved = progress.improved_epoch
        waited = 0 if improved is None else progress.epoch - improved
        return progress.epoch >= settings.epochs or 0 < settings.patience <= waited

    def tensors(self) -> dict[str, Tensor]:
        """Return everything with a shape, under readable names."""
        saved = named_tensors(model=self.model, loss=self.loss)
        for name, parameter in self._named_parameters().items():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                saved[f"optimizer.{key}.{name}"] = value
        return saved

    def restore(self, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
        """Restore `tensors` and the fields of `progress`; the next step is then the same one.

        Raises:
            ValueError: they are not of a training with these settings.
        """
        self.progress = Progress.read(progress, self.settings.train.epochs)
        load_module(self.model, tensors, "model")
        load_module(self.loss, tensors, "loss")
        is_fused = self.optimizer.defaults["fused"]
        for name, parameter in self._named_parameters().items():
            for key in ("step", "exp_avg", "exp_avg_sq"):
                value = tensors.get(f"optimizer.{key}.{name}")
                if value is not None:
                    # The optimizer reads memory without a look at shapes.
                    expected = torch.empty(()) if key == "step" else parameter.detach()
                    check_tensor(f"optimizer.{key}.{name}", value, expected)
                    on_cpu = key == "step" and not is_fused
                    device = torch.device("cpu") if on_cpu else self.device
                    self.optimizer.state[parameter][key] = value.to(device, copy=True)

    def _named_parameters(self) -> dict[str, nn.Parameter]:
        modules = {"model": self.model, "loss": self.loss}
        return {
            f"{prefix}.{name}": parameter
            for prefix, module in modules.items()
            for name, parameter in module.named_parameters()
        }
