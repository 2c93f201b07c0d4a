"""Threads that take a piece of work each."""

import sys
import threading
from collections.abc import Generator
from contextlib import closing
from typing import cast

import pytest
import torch

from slrctl.core.devices import map_in_threads, map_on
from slrctl.core.seeding import scoped_generator, scoped_seed

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_items_whichever_is_ready_first():
    second_is_done = threading.Event()

    def work(item):
        if item == 0:
            assert second_is_done.wait(60)
        second_is_done.set()
        return item**2

    assert list(map_in_threads(work, range(9))) == [n**2 for n in range(9)]


def test_each_thread_computes_with_its_share_of_torchs_threads():
    def work(_):
        return threading.get_ident(), torch.get_num_threads()

    found = list(map_in_threads(work, range(4)))

    assert {own for _, own in found} == {1}
    assert threading.get_ident() not in {ident for ident, _ in found}
    assert torch.get_num_threads() == 2
    new = []  # what a thread has that starts afterwards
    thread = threading.Thread(target=lambda: new.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert new == [2]


@pytest.mark.parametrize("is_left_early", [False, True])
def test_threads_take_turns_at_pythons_lock_sooner_until_all_is_done(is_left_early):
    before = sys.getswitchinterval()

    turns = map_in_threads(lambda _: sys.getswitchinterval(), range(4))
    with closing(cast(Generator, turns)):
        found = [next(turns)] if is_left_early else list(turns)

    assert max(found) < before / 10
    assert sys.getswitchinterval() == before


@pytest.mark.parametrize("count", [1, 5])
def test_between_results_the_caller_has_one_thread_and_afterwards_as_many_as_before(count):
    between = [torch.get_num_threads() for _ in map_in_threads(lambda n: n, range(count))]

    assert between == [1] * count
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("items", "threads"), [((7,), 2), ((7, 8), 1), ((), 2)])
def test_what_cannot_be_shared_out_is_done_here_and_by_one_thread_too(items, threads):
    torch.set_num_threads(threads)

    found = list(
        map_in_threads(lambda n: (n, threading.get_ident(), torch.get_num_threads()), items)
    )

    assert found == [(n, threading.get_ident(), 1) for n in items]
    assert torch.get_num_threads() == threads


def test_an_error_in_a_thread_is_raised_here_and_the_others_finish():
    finished = []

    def work(item):
        if item == 0:
            raise ValueError("item 0")
        finished.append(item)

    with pytest.raises(ValueError, match="item 0"):
        list(map_in_threads(work, range(2)))
    assert finished == [1]
    assert torch.get_num_threads() == 2


def test_items_are_taken_up_only_as_they_are_needed():
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    with closing(cast(Generator[int], map_in_threads(lambda n: n, items()))) as results:
        assert next(results) == 0
        assert len(taken) == 4


def test_a_thread_finds_the_surrounding_settings_that_python_keeps_in_its_context():
    with scoped_seed(3, CPU):
        own = scoped_generator(CPU)
        assert list(map_in_threads(lambda _: scoped_generator(CPU) is own, range(2))) == [True] * 2


def test_an_accelerator_gets_one_item_after_the_other_from_this_thread():
    def work(_):
        return threading.get_ident()

    assert set(map_on(torch.device("meta"), work, range(4))) == {threading.get_ident()}


def test_a_profiler_is_shown_the_work_in_the_thread_that_it_watches():
    with torch.profiler.profile() as watched:
        list(map_in_threads(lambda n: torch.ones(n + 1).cumsum(0), range(3)))

    assert sum(event.count for event in watched.key_averages() if event.key == "aten::cumsum") == 3
