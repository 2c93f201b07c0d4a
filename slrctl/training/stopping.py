"""A wish to stop, which a training grants where its state is whole: between two batches."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from slrctl.training.processes import ALONE, Workers

if TYPE_CHECKING:
    from slrctl.core.clip import ClipBatch


class StopAsked(Exception):  # noqa: N818 - the name says what happened
    """Raised between two batches; weights, optimizer and progress belong together there."""


class StopRequest:
    """Whether somebody asked a run to stop.

    `ask` may be called at any moment, from a handler of signals too.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self.is_awaited = False

    def ask(self) -> None:
        """Ask to stop.

        Raises:
            KeyboardInterrupt: nothing waits for the wish, because nothing needs to be saved.
        """
        self.is_asked = True
        if not self.is_awaited:
            raise KeyboardInterrupt

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Let `ask` only be noted inside the block, for what is under way must be saved."""
        self.is_awaited = True
        try:
            yield
        finally:
            self.is_awaited = False

    def check(self, workers: Workers = ALONE) -> None:
        """Grant the wish, whichever of the processes that train together was asked.

        Raises:
            StopAsked: there is one.
        """
        if any(workers.summed([self.is_asked])):
            raise StopAsked

    def between(
        self, batches: "Iterator[ClipBatch]", workers: Workers = ALONE
    ) -> "Iterator[ClipBatch]":
        """The same batches, as many in each process; the wish is granted before each."""
        for batch in batches:
            self.check(workers)
            yield batch

    def dealt_out(
        self, batches: "Iterator[ClipBatch]", workers: Workers = ALONE
    ) -> "Iterator[ClipBatch]":
        """The same batches, of which each process may have another number.

        Who was asked takes no more of them; the wish is granted where all have come to their end.
        """
        yield from itertools.takewhile(lambda _: not self.is_asked, batches)
        self.check(workers)
