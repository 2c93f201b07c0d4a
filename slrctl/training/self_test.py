"""Check an installation: does it compute the right numbers, the same ones again, and keep them?"""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from slrctl.core.clip import ClipBatch
from slrctl.core.data.batches import (
    evaluation_batches,
    num_batches,
    prepare_clips,
    training_micro_batches,
)
from slrctl.core.data.synthetic import SynthesisParameters, synthesise
from slrctl.core.devices import choose_device, deterministic
from slrctl.errors import SlrctlError
from slrctl.files import user_cache_folder
from slrctl.runs.checkpoint import load_checkpoint, save_checkpoint
from slrctl.runs.environment import describe_machine
from slrctl.settings import CMCLSettings, Settings, TrainSettings
from slrctl.training.loop import TrainingData, train_epochs
from slrctl.training.state import TrainingState

# Packages that only some commands need, under the name of the extra that brings them.
EXTRAS = {
    "pose": "pose-format",
    "video": "mediapipe",
    "ray": "ray",
    "distributed": "accelerate",
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "mlflow": "mlflow-skinny",
}
_STEPS, _SEED, _OTHER_SEED = 3, 1, 2
_LEAST_FREE = 1 << 30
_NAME = re.compile(r"[A-Za-z0-9._-]+")
# What the specification allows between other paddings and batch sizes.
_TOLERANCE = 1e-5


class Check(NamedTuple):
    """What was looked at, whether it is as it should be, and what was seen."""

    name: str
    is_ok: bool
    detail: str
    seconds: float


@dataclass(frozen=True)
class _Trained:
    """A training after a few steps, and the batches it has not seen."""

    state: TrainingState
    unseen: list[ClipBatch]


class Examination(NamedTuple):
    """Facts about a machine, and the checks of the installation, which run as they are read."""

    facts: dict[str, Any]
    checks: Iterator[Check]


def examine(device: str) -> Examination:
    """Examine this machine and the folders that slrctl writes to; nothing is kept.

    Raises:
        UsageError: the device cannot be used.
    """
    chosen = choose_device(device)
    folders = {"runs": Path("runs"), "cache": user_cache_folder()}
    return Examination(machine_facts(chosen), self_test(chosen, folders))


def self_test(device: torch.device, folders: dict[str, Path]) -> Iterator[Check]:
    """Look at one thing after the other; nothing is kept.

    Args:
        device: where to compute.
        folders: places slrctl writes to, by what they are for.
    """
    with deterministic():
        for name, look in (
            ("packages", _packages),
            ("arithmetic", lambda: _arithmetic(device)),
        ):
            yield _timed(name, look)
        started = time.perf_counter()
        try:
            first = _train(_SEED, device)
        except (SlrctlError, RuntimeError) as error:
            yield Check("training", False, str(error), time.perf_counter() - started)
        else:
            seconds = time.perf_counter() - started
            yield Check("training", True, f"{_STEPS} steps of the default model", seconds)
            for name, look in (
                ("same seed, same bits", lambda: _repeats(first, device)),
                ("another seed differs", lambda: _differs(first, device)),
                ("alone or in a batch", lambda: _does_not_depend_on_batch(first)),
                ("saved and loaded", lambda: _survives_saving(first, device)),
                ("bf16", lambda: _bf16(device)),
            ):
                yield _timed(name, look)
    for name, folder in folders.items():
        yield _timed(name, lambda folder=folder: _can_be_written(folder))


def machine_facts(device: torch.device) -> dict[str, Any]:
    """What belongs into a report of a fault: versions, extras, processor, memory."""
    return {
        **describe_machine(device),
        "extras": {extra: _version(package) for extra, package in EXTRAS.items()},
        "memory_gb": _memory_gb(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def _timed(name: str, look: Callable[[], tuple[bool, str]]) -> Check:
    started = time.perf_counter()
    try:
        is_ok, detail = look()
    except (SlrctlError, RuntimeError, OSError) as error:
        is_ok, detail = False, " ".join(str(error).split())
    return Check(name, is_ok, detail, time.perf_counter() - started)


def _packages() -> tuple[bool, str]:
    """Whether everything slrctl requires is there."""
    required = [
        line.split(";")[0]
        for line in metadata.requires("slrctl") or []
        if "extra ==" not in line.replace("'", '"')
    ]
    names = [
        "".join(c if c.isalnum() or c in "-_." else " " for c in r).split()[0] for r in required
    ]
    missing = [name for name in names if _version(name) is None]
    if missing:
        return False, f"missing: {', '.join(missing)}; install slrctl again"
    return True, f"all {len(names)} that are required"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _arithmetic(device: torch.device) -> tuple[bool, str]:
    """Whether a product on the device is that of the processor in double precision."""
    draws = torch.Generator().manual_seed(0)
    left, right = (torch.randn(64, 64, generator=draws) for _ in range(2))
    found = (left.to(device) @ right.to(device)).cpu().double()
    error = float((found - left.double() @ right.double()).abs().max())
    return error < 1e-3, f"a matrix product on {device} is off by {error:.1e} at most"


def _train(seed: int, device: torch.device, precision: str = "fp32") -> _Trained:
    """Take a few steps of the default model with CMCL, on made clips."""
    settings = Settings(
        seed=seed,
        cmcl=CMCLSettings(preset="balanced", lambda_consistency=0.1, lambda_alignment=0.05),
        train=TrainSettings.model_validate({"batch_size": 8, "precision": precision}),
    )
    dataset = synthesise(
        SynthesisParameters(
            num_glosses=4,
            num_train_signers=2,
            num_val_signers=0,
            num_test_signers=0,
            repetitions=4,
        )
    ).dataset
    state = TrainingState.initial(settings, dataset.classes, device)
    data = TrainingData(
        lambda epoch, start: training_micro_batches(
            dataset, settings, epoch, device=device, start=start
        ),
        num_batches(len(dataset), settings.train.batch_size),
        lambda: iter(()),
    )
    for _ in islice(train_epochs(state, data), _STEPS):
        pass
    prepared = prepare_clips(dataset, settings)
    return _Trained(state, [*evaluation_batches(prepared, 4), *evaluation_batches(prepared, 1)])


def _logits(trained: _Trained) -> list[Tensor]:
    model, device = trained.state.model.eval(), trained.state.device
    with torch.inference_mode():
        return [model(batch.to(device)).logits.cpu() for batch in trained.unseen]


def _are_equal(one: TrainingState, other: TrainingState) -> bool:
    ours, theirs = one.tensors(), other.tensors()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


def _repeats(first: _Trained, device: torch.device) -> tuple[bool, str]:
    is_same = _are_equal(first.state, _train(_SEED, device).state)
    seen = "weights and optimizer are the same" if is_same else "weights differ"
    return is_same, f"{seen} after {_STEPS} steps from seed {_SEED}, twice"


def _differs(first: _Trained, device: torch.device) -> tuple[bool, str]:
    is_other = not _are_equal(first.state, _train(_OTHER_SEED, device).state)
    return (
        is_other,
        f"seeds {_SEED} and {_OTHER_SEED} give {'other' if is_other else 'the same'} weights",
    )


def _does_not_depend_on_batch(first: _Trained) -> tuple[bool, str]:
    logits = _logits(first)
    num_batched = sum(len(batch) > 1 for batch in first.unseen)
    batched, alone = torch.cat(logits[:num_batched]), torch.cat(logits[num_batched:])
    error = float((batched - alone).abs().max())
    return error < _TOLERANCE, f"logits differ by {error:.1e} at most ({_TOLERANCE:g} allowed)"


def _survives_saving(first: _Trained, device: torch.device) -> tuple[bool, str]:
    state = first.state
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        save_checkpoint(path, state.tensors(), state.settings, state.classes, state.progress_json())
        saved = load_checkpoint(path)
    again = TrainingState.initial(saved.settings, saved.classes, device)
    again.restore(saved.tensors, saved.progress)
    ours, theirs = _logits(first), _logits(_Trained(again, first.unseen))
    is_same = _are_equal(state, again) and all(map(torch.equal, ours, theirs))
    return is_same, f"the whole state and its predictions are {'the same' if is_same else 'others'}"


def _bf16(device: torch.device) -> tuple[bool, str]:
    """Whether bfloat16 trains; whether it pays is another question."""
    state = _train(_SEED, device, "bf16").state
    is_finite = all(bool(torch.isfinite(tensor).all()) for tensor in state.tensors().values())
    return is_finite, f"{_STEPS} steps give {'finite' if is_finite else 'infinite'} weights"


def _can_be_written(folder: Path) -> tuple[bool, str]:
    """Whether a file can be made in a folder, or in the nearest one above that exists."""
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    with tempfile.NamedTemporaryFile(dir=place):
        free = shutil.disk_usage(place).free
    said = f"{folder} can be written, {free / 1e9:,.1f} GB free"
    return free >= _LEAST_FREE, said if free >= _LEAST_FREE else f"{said}: make room"


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)
    except (ValueError, OSError, AttributeError):
        return None
