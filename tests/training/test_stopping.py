"""A request to stop is honoured between two batches, and at once where nothing must be saved."""

import pytest

from slrctl.training.processes import SINGLE, ProcessGroup, StopAsked, StopRequest


class BesideOneThatIsAsked(ProcessGroup):
    """A process of two, of which the other was asked to stop."""

    def any(self, flag):
        return True


def test_asking_where_nothing_must_be_saved_interrupts_at_once():
    with pytest.raises(KeyboardInterrupt):
        StopRequest().ask()


def test_asking_where_something_must_be_saved_is_honoured_before_the_next_batch():
    stop = StopRequest()
    batches = stop.between(iter("abc"), SINGLE)

    with stop.awaited():
        next(batches)
        next(batches)
        stop.ask()
        with pytest.raises(StopAsked):
            next(batches)

    assert not stop.is_awaited


def test_batches_dealt_out_end_when_asked_and_the_request_is_honoured_at_their_end():
    stop = StopRequest()
    batches = stop.until_asked(iter("abc"), SINGLE)

    with stop.awaited():
        next(batches)
        stop.ask()
        with pytest.raises(StopAsked):
            next(batches)


def test_batches_dealt_out_all_come_where_nobody_asks():
    assert list(StopRequest().until_asked(iter("abc"), SINGLE)) == ["a", "b", "c"]


def test_a_process_stops_when_another_one_was_asked():
    with pytest.raises(StopAsked):
        StopRequest().check(BesideOneThatIsAsked())
