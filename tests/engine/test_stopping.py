"""A wish to stop is granted between two batches, and at once where there is nothing to save."""

import pytest

from slrctl.engine.stopping import StopAsked, StopRequest


def test_asking_where_nothing_must_be_saved_interrupts_at_once():
    stop = StopRequest()

    with pytest.raises(KeyboardInterrupt):
        stop.ask()


def test_asking_where_something_must_be_saved_is_granted_before_the_next_batch(batch):
    stop, seen = StopRequest(), []

    with pytest.raises(StopAsked), stop.awaited():
        for one in stop.between(iter([batch, batch, batch])):
            seen.append(one)
            if len(seen) == 2:
                stop.ask()

    assert len(seen) == 2
    assert not stop.is_awaited
