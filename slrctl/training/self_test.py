"""Checks of an installation: packages, arithmetic, repeatability, saving, folders."""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cache
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from slrctl.core.data.batches import evaluation_batches
from slrctl.core.data.splits import Splits
from slrctl.core.data.synthetic import SynthesisParameters, synthesise
from slrctl.core.devices import choose_device, deterministic
from slrctl.errors import SlrctlError
from slrctl.files import user_cache_folder
from slrctl.runs.checkpoint import load_checkpoint, save_checkpoint
from slrctl.runs.folder import describe_machine
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
# The largest difference between logits of other paddings and batch sizes.
_TOLERANCE = 1e-5

Verdict = tuple[bool, str]


class Check(NamedTuple):
    """The name of a check, its verdict, and the details behind it."""

    name: str
    is_ok: bool
    detail: str
    seconds: float


def examine(device: str) -> tuple[dict[str, Any], Iterator[Check]]:
    """Return facts about this machine, and the checks of the installation, made as they are read.

    Raises:
        UsageError: the device cannot be used.
    """
    chosen = choose_device(device)
    folders = {"runs": Path("runs"), "cache": user_cache_folder()}
    return machine_facts(chosen), self_test(chosen, folders)


def machine_facts(device: torch.device) -> dict[str, Any]:
    """Collect what belongs into a report of a fault: versions, extras, processor, memory."""
    try:
        memory_gb = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)
    except (ValueError, OSError, AttributeError):  # not on every system
        memory_gb = None
    return {
        **describe_machine(device),
        "extras": {extra: _version(package) for extra, package in EXTRAS.items()},
        "memory_gb": memory_gb,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def self_test(device: torch.device, folders: dict[str, Path]) -> Iterator[Check]:
    """Make one check after the other; `folders` are places slrctl writes to, by their use."""
    first: list[TrainingState] = []

    def check_training() -> Verdict:
        first.append(_train(_SEED, device))
        return True, f"{_STEPS} steps of the default model"

    with deterministic():
        yield _timed("packages", _check_packages)
        yield _timed("arithmetic", _check_arithmetic, device)
        yield _timed("training", check_training)
        for state in first:
            yield _timed("same seed, same bits", _check_same_seed, state)
            yield _timed("another seed differs", _check_other_seed, state)
            yield _timed("alone or in a batch", _check_batch_size, state)
            yield _timed("saved and loaded", _check_saving, state)
            yield _timed("bf16", _check_bf16, device)
    for name, folder in folders.items():
        yield _timed(name, _check_folder, folder)


def _timed(name: str, check: Callable[..., Verdict], *given: object) -> Check:
    started = time.perf_counter()
    try:
        is_ok, detail = check(*given)
    except (SlrctlError, RuntimeError, OSError) as error:
        is_ok, detail = False, " ".join(str(error).split())
    return Check(name, is_ok, detail, time.perf_counter() - started)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _check_packages() -> Verdict:
    required = [line for line in metadata.requires("slrctl") or [] if "extra ==" not in line]
    names = [re.split(r"[^\w.-]", line)[0] for line in required]
    missing = [name for name in names if _version(name) is None]
    if missing:
        return False, f"missing: {', '.join(missing)}; install slrctl again"
    return True, f"all {len(names)} that are required"


def _check_arithmetic(device: torch.device) -> Verdict:
    draws = torch.Generator().manual_seed(0)
    left, right = (torch.randn(64, 64, generator=draws) for _ in range(2))
    found = (left.to(device) @ right.to(device)).cpu().double()
    error = float((found - left.double() @ right.double()).abs().max())
    return error < 1e-3, f"a matrix product on {device} is off by {error:.1e} at most"


@cache
def _clips() -> Splits:
    """Make some clips to train on and to predict."""
    clips = synthesise(
        SynthesisParameters(
            num_glosses=4,
            num_train_signers=2,
            num_val_signers=0,
            num_test_signers=0,
            repetitions=4,
        )
    ).dataset
    return Splits(clips, clips, None, ())


def _train(seed: int, device: torch.device, precision: str = "fp32") -> TrainingState:
    """Take a few steps of the default model with CMCL."""
    settings = Settings(
        seed=seed,
        cmcl=CMCLSettings(preset="balanced", lambda_consistency=0.1, lambda_alignment=0.05),
        train=TrainSettings.model_validate({"batch_size": 8, "precision": precision}),
    )
    state = TrainingState.initial(settings, _clips().train.classes, device)
    data = TrainingData.of_splits(_clips(), settings, device)
    for _ in islice(train_epochs(state, data), _STEPS):
        pass
    return state


def _logits(state: TrainingState, batch_size: int) -> Tensor:
    model = state.model.eval()
    batches = evaluation_batches(_clips().val, state.settings, batch_size=batch_size)
    with torch.inference_mode():
        return torch.cat([model(batch.to(state.device)).logits.cpu() for batch in batches])


def _are_equal(one: TrainingState, other: TrainingState) -> bool:
    ours, theirs = one.tensors(), other.tensors()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


def _check_same_seed(state: TrainingState) -> Verdict:
    is_same = _are_equal(state, _train(_SEED, state.device))
    parameters = "parameters and optimizer are the same" if is_same else "parameters differ"
    return is_same, f"{parameters} after {_STEPS} steps from seed {_SEED}, twice"


def _check_other_seed(state: TrainingState) -> Verdict:
    is_same = _are_equal(state, _train(_OTHER_SEED, state.device))
    parameters = "the same parameters" if is_same else "other parameters"
    return not is_same, f"seeds {_SEED} and {_OTHER_SEED} give {parameters}"


def _check_batch_size(state: TrainingState) -> Verdict:
    error = float((_logits(state, 4) - _logits(state, 1)).abs().max())
    return error < _TOLERANCE, f"logits differ by {error:.1e} at most ({_TOLERANCE:g} allowed)"


def _check_saving(state: TrainingState) -> Verdict:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        save_checkpoint(
            path, state.tensors(), state.settings, state.classes, asdict(state.progress)
        )
        saved = load_checkpoint(path)
    again = TrainingState.initial(saved.settings, saved.classes, state.device)
    again.restore(saved.tensors, saved.progress)
    is_same = _are_equal(state, again) and torch.equal(_logits(state, 4), _logits(again, 4))
    return is_same, f"the whole state and its predictions are {'the same' if is_same else 'others'}"


def _check_bf16(device: torch.device) -> Verdict:
    tensors = _train(_SEED, device, "bf16").tensors().values()
    is_finite = all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
    return is_finite, f"{_STEPS} steps give {'finite' if is_finite else 'infinite'} parameters"


def _check_folder(folder: Path) -> Verdict:
    """Check that a file can be made in the folder, or in the nearest one above that exists."""
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    with tempfile.NamedTemporaryFile(dir=place):
        free = shutil.disk_usage(place).free
    detail = f"{folder} can be written, {free / 1e9:,.1f} GB free"
    return free >= _LEAST_FREE, detail if free >= _LEAST_FREE else f"{detail}: make room"
