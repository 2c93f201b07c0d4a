"""A wish to stop is granted between two batches, and at once where there is nothing to save."""

import pytest

from slrctl.training.stopping import StopAsked, StopRequest


def test_asking_where_nothing_must_be_saved_interrupts_at_once():
    stop = StopRequest()

    with pytest.raises(KeyboardInterrupt):
        stop.ask()


def test_asking_where_something_must_be_saved_is_granted_before_the_next_batch(batch):
    stop = StopRequest()
    batches = stop.between(iter([batch, batch, batch]))

    with stop.awaited():
        next(batches)
        next(batches)
        stop.ask()
        with pytest.raises(StopAsked):
            next(batches)

    assert not stop.is_awaited


def test_batches_dealt_out_end_when_asked_and_the_wish_is_granted_at_their_end(batch):
    stop = StopRequest()
    batches = stop.dealt_out(iter([batch, batch, batch]))

    with stop.awaited():
        next(batches)
        stop.ask()
        with pytest.raises(StopAsked):
            next(batches)


def test_batches_dealt_out_all_come_where_nobody_asks(batch):
    assert len(list(StopRequest().dealt_out(iter([batch, batch, batch])))) == 3
