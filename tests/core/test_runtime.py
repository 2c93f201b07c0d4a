"""In which arithmetic a training runs, and what it remembers of that."""

from pathlib import Path

import pytest
import torch
from run_contents import contents

from slrctl.core import devices as runtime
from slrctl.core.devices import choose_precision, settled
from slrctl.core.model import cpu
from slrctl.settings import Settings
from slrctl.training.loop import train_epochs
from slrctl.training.processes import Alone
from slrctl.training.resume import find_saved_run
from slrctl.training.run import resume_training, run_training
from slrctl.training.run_batches import training_data
from slrctl.training.state import TrainingState

CPU = torch.device("cpu")


@pytest.fixture
def processor(monkeypatch):
    """Let the processor be one with units for bfloat16, or one without."""

    def become(*, has_bf16):
        monkeypatch.setattr(runtime, "cpu_capabilities", lambda: {"amx_bf16": has_bf16})

    return become


@pytest.fixture
def settings(tiny_settings):
    return Settings.layered(tiny_settings.model_dump(), {"train": {"precision": "auto"}})


def test_precision_is_auto_unless_it_is_named():
    assert Settings().train.precision == "auto"


@pytest.mark.parametrize(
    ("processor", "taken"),
    [
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, "bf16"),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, "fp32"),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True, "amx_bf16": False}, "bf16"),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": False}, "fp32"),
        ({"architecture": "arm64"}, "fp32"),
        ({}, "fp32"),
    ],
)
def test_auto_takes_bf16_where_the_processor_is_faster_in_it(monkeypatch, processor, taken):
    monkeypatch.setattr(runtime, "cpu_capabilities", lambda: processor)

    assert choose_precision("auto", CPU) == taken


@pytest.mark.parametrize("name", ["fp32", "bf16"])
@pytest.mark.parametrize("has_bf16", [True, False])
def test_a_named_precision_is_taken_on_every_processor(processor, has_bf16, name):
    processor(has_bf16=has_bf16)

    assert choose_precision(name, CPU) == name


def test_auto_is_fp32_on_a_device_nothing_was_measured_on(processor):
    processor(has_bf16=True)

    assert choose_precision("auto", torch.device("meta")) == "fp32"


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16"])
def test_the_processor_says_of_bf16_what_the_system_says(flag):
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        pytest.skip("the system has no /proc/cpuinfo")
    flags = next((line.split() for line in lines if line.startswith("flags")), None)
    if flags is None:
        pytest.skip("the system names no flags of this kind of processor")

    assert runtime.cpu_capabilities().get(flag, False) == (flag in flags)


def test_an_older_torch_that_cannot_be_asked_trains_in_fp32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities")

    assert choose_precision("auto", CPU) == "fp32"


@pytest.mark.parametrize(
    ("cpu_kernels", "dropout", "device", "used"),
    [
        (True, 0.1, "cpu", True),
        (False, 0.1, "cpu", False),
        (True, 0.0, "cpu", False),
        (True, 0.1, "meta", False),
    ],
)
def test_kernels_are_for_dropout_on_a_cpu(tiny_settings, cpu_kernels, dropout, device, used):
    changes = {"train": {"cpu_kernels": cpu_kernels}, "model": {"dropout": dropout}}
    settings = Settings.layered(tiny_settings.model_dump(), changes)

    assert runtime.has_cpu_kernels(settings, torch.device(device)) == used


def test_settling_changes_nothing_else(processor, settings):
    processor(has_bf16=True)

    expected = Settings.layered(settings.model_dump(), {"train": {"precision": "bf16"}})
    assert settled(settings, CPU) == expected


@pytest.mark.parametrize(("has_bf16", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_step_computes_in_what_was_taken(processor, settings, tiny_splits, has_bf16, dtype):
    processor(has_bf16=has_bf16)
    settings = Settings.layered(settings.model_dump(), {"train": {"cpu_kernels": False}})
    state, seen = TrainingState.initial(settings, tiny_splits.train.classes, CPU), set()
    state.model.classifier.register_forward_hook(lambda *call: seen.add(call[2].dtype))

    next(train_epochs(state, training_data(settings, tiny_splits)))

    assert seen == {dtype}


@pytest.mark.parametrize(("has_bf16", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_kernels_multiply_in_what_was_taken(
    processor, settings, tiny_splits, monkeypatch, has_bf16, dtype
):
    processor(has_bf16=has_bf16)
    state = TrainingState.initial(settings, tiny_splits.train.classes, CPU)
    seen, multiply = set(), cpu._multiply
    monkeypatch.setattr(cpu, "_multiply", lambda *x: seen.add(x[0].dtype) or multiply(*x))

    next(train_epochs(state, training_data(settings, tiny_splits)))

    assert seen == {dtype}


def test_a_run_goes_on_in_the_precision_it_began_with(processor, settings, tiny_splits, tmp_path):
    processor(has_bf16=True)
    for _ in run_training(settings, tiny_splits, tmp_path / "whole"):
        pass
    stopped = run_training(settings, tiny_splits, tmp_path / "stopped")
    for _ in range(3):
        next(stopped)
    stopped.close()

    processor(has_bf16=False)
    for _ in resume_training(find_saved_run(tmp_path / "stopped"), tiny_splits):
        pass

    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")
    assert 'precision = "bf16"' in (tmp_path / "stopped" / "settings.toml").read_text()


class BesideOneThatTakesFp32(Alone):
    """The first process of two; the other says yes to the first question, whether it takes fp32."""

    count = 2

    def __init__(self):
        self.answers = [1]

    def summed(self, numbers):
        answer = self.answers.pop() if self.answers else 0
        return [number + answer for number in numbers]


def test_all_processes_take_fp32_where_one_would(processor, settings, tiny_splits, tmp_path):
    processor(has_bf16=True)

    next(run_training(settings, tiny_splits, tmp_path, workers=BesideOneThatTakesFp32()))

    assert 'precision = "fp32"' in (tmp_path / "settings.toml").read_text()
