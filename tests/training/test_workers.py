"""Who trains together, and who speaks for all of them."""

import sys

import pytest

from slrctl.errors import Interrupted, ReportedElsewhere, SlrctlError, TrainingDiverged, UsageError
from slrctl.launch import launched_count, launched_rank, one_voice
from slrctl.training.processes import (
    ALONE,
    Alone,
    first_only,
    joined_workers,
)
from slrctl.training.stopping import StopAsked, StopRequest


@pytest.fixture
def launched(monkeypatch):
    """What a launcher tells a process."""

    def launch(rank, count):
        monkeypatch.setenv("WORLD_SIZE", str(count))
        monkeypatch.setenv("RANK", str(rank))

    return launch


class BesideOneThatIsAsked(Alone):
    """A process of two, of which the other was asked to stop."""

    def summed(self, numbers):
        return [number + 1 for number in numbers]


def test_a_process_without_a_launcher_is_alone_and_needs_no_extra():
    with joined_workers("cpu") as workers:
        assert workers is ALONE

    assert "accelerate" not in sys.modules


def test_several_processes_without_the_extra_are_told_which_to_install(launched, monkeypatch):
    launched(0, 2)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    monkeypatch.delitem(sys.modules, "slrctl.training.accelerated", raising=False)

    with pytest.raises(UsageError, match=r"pip install 'slrctl\[distributed\]'"):
        joined_workers("cpu").__enter__()


def test_a_launcher_that_counts_wrongly_is_told_so(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "two")

    with pytest.raises(UsageError, match="WORLD_SIZE=two: must be a whole number"):
        launched_count()


def test_a_rank_without_other_processes_is_the_first(launched):
    launched(3, 1)

    assert launched_rank() == 0


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

    with pytest.raises(SlrctlError, match="disk"), one_voice():
        raise SlrctlError("disk full")


def test_a_process_stops_when_another_one_was_asked():
    with pytest.raises(StopAsked):
        StopRequest().check(BesideOneThatIsAsked())


def test_alone_everything_is_done_here():
    assert first_only(ALONE, lambda: 7) == 7
