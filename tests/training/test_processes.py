"""The processes that train together: who joins, who speaks, what all find out, how they stop."""

import sys

import pytest
import torch

from slrctl.errors import (
    Interrupted,
    ReportedElsewhere,
    SlrctlError,
    TrainingDiverged,
    UsageError,
    launched_count,
    launched_rank,
    one_voice,
)
from slrctl.training.processes import (
    SINGLE,
    ProcessGroup,
    StopAsked,
    StopRequest,
    joined_group,
)


@pytest.fixture
def launched(monkeypatch):
    """Set what a launcher tells a process."""

    def launch(rank, count):
        monkeypatch.setenv("WORLD_SIZE", str(count))
        monkeypatch.setenv("RANK", str(rank))

    return launch


class SecondOfTwo(ProcessGroup):
    """Rank 1 of two, whose gathered items begin with those of the other."""

    def __init__(self, *others):
        super().__init__()
        self.rank, self.size, self.others = 1, 2, list(others)

    def gather(self, items):
        return [self.others.pop(0), *items]


def test_a_process_without_a_launcher_is_alone_and_needs_no_extra():
    with joined_group("cpu") as group:
        assert (group.rank, group.size, group.device("cpu")) == (0, 1, torch.device("cpu"))
        assert group.gather([1, 2]) == group.gather_in_turn([1, 2]) == [1, 2]
        assert group.sum(torch.tensor([1.0, 2.0])).tolist() == [1, 2]
        assert (group.any(True), group.any(False)) == (True, False)
        assert group.on_first(lambda: 7) == 7

    assert "accelerate" not in sys.modules


def test_several_processes_without_the_extra_are_told_which_to_install(launched, monkeypatch):
    launched(0, 2)
    monkeypatch.setitem(sys.modules, "accelerate", None)

    with pytest.raises(UsageError, match=r"pip install 'slrctl\[distributed\]'"):
        joined_group("cpu").__enter__()


def test_a_launcher_that_counts_wrongly_is_told_so(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "two")

    with pytest.raises(UsageError, match="WORLD_SIZE=two"):
        launched_count()


def test_a_rank_without_other_processes_is_the_first(launched):
    launched(3, 1)

    assert launched_rank() == 0


def test_results_of_batches_dealt_out_in_turn_come_in_the_order_of_the_batches():
    assert SecondOfTwo(["a", "c", "e"]).gather_in_turn(["b", "d"]) == ["a", "b", "c", "d", "e"]


def fail():
    raise SlrctlError("disk full")


@pytest.mark.parametrize(
    ("code_of_first", "act", "raised", "code"),
    [
        (0, fail, SlrctlError, 1),
        (3, fail, ReportedElsewhere, 3),
        (3, lambda: 7, ReportedElsewhere, 3),
    ],
)
def test_a_failure_in_one_process_fails_all_and_is_told_by_the_first_that_failed(
    code_of_first, act, raised, code
):
    with pytest.raises(raised) as caught:
        SecondOfTwo(code_of_first).together(act)

    assert (type(caught.value), caught.value.exit_code) == (raised, code)
    assert SecondOfTwo(0).together(lambda: 7) == 7


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (UsageError("wrong"), 2),
        (TrainingDiverged("nan"), 4),
        (Interrupted("stop"), 130),
        (KeyboardInterrupt(), 130),
    ],
)
def test_what_all_find_out_is_told_by_the_first(launched, raised, code):
    launched(0, 2)
    with pytest.raises(type(raised)), one_voice():
        raise raised

    launched(1, 2)
    with pytest.raises(ReportedElsewhere) as caught, one_voice():
        raise raised

    assert caught.value.exit_code == code


def test_what_one_finds_out_is_told_by_that_one(launched):
    launched(1, 2)

    with pytest.raises(SlrctlError, match="disk full"), one_voice():
        fail()


def test_asking_where_nothing_must_be_saved_interrupts_at_once():
    with pytest.raises(KeyboardInterrupt):
        StopRequest().ask()


@pytest.mark.parametrize("batches_of", [StopRequest.between, StopRequest.until_asked])
def test_asking_where_something_must_be_saved_is_honoured_before_the_next_batch(batches_of):
    stop = StopRequest()
    assert list(batches_of(stop, iter("abc"), SINGLE)) == ["a", "b", "c"]
    batches = batches_of(stop, iter("abc"), SINGLE)

    with stop.awaited():
        assert next(batches) == "a"
        stop.ask()
        with pytest.raises(StopAsked):
            next(batches)

    assert not stop.is_awaited


def test_a_process_stops_when_another_one_was_asked(monkeypatch):
    group = ProcessGroup()
    monkeypatch.setattr(group, "any", lambda flag: True)

    with pytest.raises(StopAsked):
        StopRequest().check(group)
