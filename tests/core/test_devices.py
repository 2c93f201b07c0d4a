"""In which arithmetic a training runs, and what threads of a CPU compute side by side."""

import threading
from collections.abc import Generator
from contextlib import closing
from typing import cast

import pytest
import torch
from run_contents import contents

from slrctl.core import devices
from slrctl.core.devices import (
    choose_precision,
    deterministic,
    map_on,
    resolve_precision,
)
from slrctl.core.seeding import scoped_generator, scoped_seed
from slrctl.settings import Settings
from slrctl.training.loop import TrainingData, train_epochs
from slrctl.training.processes import ProcessGroup
from slrctl.training.resume import find_saved_run
from slrctl.training.run import resume_training, run_training
from slrctl.training.state import TrainingState

CPU = torch.device("cpu")


@pytest.fixture
def automatic(monkeypatch):
    """Let `auto` be this precision here."""
    return lambda precision: monkeypatch.setattr(
        devices, "choose_precision", lambda name, _: precision if name == "auto" else name
    )


@pytest.fixture
def settings(tiny_settings):
    return Settings.layered(tiny_settings.model_dump(), {"train": {"precision": "auto"}})


@pytest.mark.parametrize(
    ("device", "has_instructions", "expected"),
    [
        ("cuda", True, "bf16"),
        ("cuda", False, "fp32"),
        ("cpu", True, "fp32"),
        ("mps", True, "fp32"),
    ],
)
def test_auto_takes_bf16_on_a_gpu_with_instructions_for_it(
    monkeypatch, device, has_instructions, expected
):
    # Torch also counts what a GPU emulates, unless told otherwise.
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: including_emulation or has_instructions,
    )

    assert choose_precision("auto", torch.device(device)) == expected


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_a_named_precision_is_taken_on_any_device(name, device):
    assert choose_precision(name, torch.device(device)) == name


def test_resolving_the_precision_changes_nothing_else(automatic, settings):
    automatic("bf16")

    expected = Settings.layered(settings.model_dump(), {"train": {"precision": "bf16"}})
    assert resolve_precision(settings, CPU) == expected


@pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_a_step_computes_in_the_resolved_precision(automatic, settings, tiny_splits, name, dtype):
    automatic(name)
    state = TrainingState.initial(settings, tiny_splits.train.classes, CPU)
    seen = set()
    state.model.classifier.register_forward_hook(lambda *call: seen.add(call[2].dtype))

    next(train_epochs(state, TrainingData.of_splits(tiny_splits, settings, CPU)))

    assert seen == {dtype}


def test_a_run_goes_on_in_the_precision_it_began_with(automatic, settings, tiny_splits, tmp_path):
    automatic("bf16")
    for _ in run_training(settings, tiny_splits, tmp_path / "whole"):
        pass
    stopped = run_training(settings, tiny_splits, tmp_path / "stopped")
    for _ in range(3):
        next(stopped)
    stopped.close()

    automatic("fp32")
    for _ in resume_training(find_saved_run(tmp_path / "stopped"), tiny_splits):
        pass

    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")
    assert 'precision = "bf16"' in (tmp_path / "stopped" / "settings.toml").read_text()


def test_all_processes_take_fp32_where_one_would(
    automatic, settings, tiny_splits, tmp_path, monkeypatch
):
    automatic("bf16")
    group, others = ProcessGroup(), [True]  # the first question is which precision to take
    monkeypatch.setattr(group, "any", lambda flag: flag or bool(others and others.pop()))

    next(run_training(settings, tiny_splits, tmp_path, group=group))

    assert 'precision = "fp32"' in (tmp_path / "settings.toml").read_text()


def test_only_repeatable_algorithms_are_used_inside_the_block():
    before = torch.get_deterministic_debug_mode()

    with deterministic():
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert not torch.empty(1000).isnan().all()

    assert torch.get_deterministic_debug_mode() == before


@pytest.fixture
def two_threads(threads):
    threads(2)


def test_results_come_in_the_order_of_the_items_whichever_is_ready_first(two_threads):
    second_is_done = threading.Event()

    def work(item):
        if item == 0:
            assert second_is_done.wait(60)
        second_is_done.set()
        return item**2

    assert list(map_on(CPU, work, range(9))) == [n**2 for n in range(9)]


def thread_of(_):
    return threading.get_ident(), torch.get_num_threads()


def test_each_thread_computes_with_one_of_torchs_threads(two_threads):
    found = list(map_on(CPU, thread_of, range(4)))

    assert {own for _, own in found} == {1}
    assert threading.get_ident() not in {ident for ident, _ in found}
    assert torch.get_num_threads() == 2
    new = []  # what a thread has that starts afterwards
    thread = threading.Thread(target=lambda: new.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert new == [2]


@pytest.mark.parametrize(("num_threads", "at_once"), [(1, None), (2, 1)])
def test_items_that_are_computed_one_at_a_time_stay_in_this_thread(threads, num_threads, at_once):
    threads(num_threads)

    found = list(map_on(CPU, thread_of, range(3), at_once=at_once))

    assert found == [(threading.get_ident(), 1)] * 3
    assert torch.get_num_threads() == num_threads


def test_no_more_items_are_computed_at_once_than_allowed(threads):
    threads(3)
    running, most = [], []

    def work(item):
        running.append(item)
        most.append(len(running))
        threading.Event().wait(0.02)
        running.remove(item)

    for _ in map_on(CPU, work, range(6), at_once=2):
        pass

    assert max(most) == 2


@pytest.mark.parametrize("count", [0, 1, 5])
def test_between_results_the_caller_has_one_thread_and_afterwards_as_many_as_before(
    two_threads, count
):
    between = [torch.get_num_threads() for _ in map_on(CPU, lambda n: n, range(count))]

    assert between == [1] * count
    assert torch.get_num_threads() == 2


def test_an_error_in_a_thread_is_raised_here_and_the_others_finish(two_threads):
    finished = []

    def work(item):
        if item == 0:
            raise ValueError("item 0")
        finished.append(item)

    with pytest.raises(ValueError, match="item 0"):
        list(map_on(CPU, work, range(2)))
    assert finished == [1]
    assert torch.get_num_threads() == 2


def test_items_are_taken_only_as_they_are_needed(two_threads):
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    with closing(cast(Generator[int], map_on(CPU, lambda n: n, items()))) as results:
        assert next(results) == 0
        assert len(taken) == 4


def test_a_thread_finds_the_surrounding_settings_that_python_keeps_in_its_context(two_threads):
    with scoped_seed(3, CPU):
        own = scoped_generator(CPU)
        assert list(map_on(CPU, lambda _: scoped_generator(CPU) is own, range(2))) == [True] * 2


def test_an_accelerator_gets_one_item_after_the_other_from_this_thread(two_threads):
    found = map_on(torch.device("meta"), thread_of, range(4))

    assert {ident for ident, _ in found} == {threading.get_ident()}
