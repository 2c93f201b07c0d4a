"""Stop requests (Ctrl-C, SIGTERM), honoured between two steps."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from slrctl.training.processes import ProcessGroup

T = TypeVar("T")


class StopAsked(Exception):  # noqa: N818 - the name says what happened
    """Raised between two batches, where model, optimizer and progress belong together."""


class StopRequest:
    """A request to stop a run; `ask` may be called at any moment, also by a signal handler."""

    def __init__(self) -> None:
        self.is_asked = False
        self.is_awaited = False

    def ask(self) -> None:
        """Ask to stop.

        Raises:
            KeyboardInterrupt: nothing waits for the request, because nothing needs to be saved.
        """
        self.is_asked = True
        if not self.is_awaited:
            raise KeyboardInterrupt

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Only note requests inside the block, for what is under way must be saved."""
        self.is_awaited = True
        try:
            yield
        finally:
            self.is_awaited = False

    def check(self, group: "ProcessGroup") -> None:
        """Honour a request made to any process of the group.

        Raises:
            StopAsked: there is one.
        """
        if group.any(self.is_asked):
            raise StopAsked

    def between(self, batches: Iterator[T], group: "ProcessGroup") -> Iterator[T]:
        """Yield the batches, as many in each process; a request is honoured before each."""
        for batch in batches:
            self.check(group)
            yield batch

    def until_asked(self, batches: Iterator[T], group: "ProcessGroup") -> Iterator[T]:
        """Yield the batches, of which each process may have another number.

        A process that was asked takes no more of them; the request is honoured where all have come
        to their end.
        """
        yield from itertools.takewhile(lambda _: not self.is_asked, batches)
        self.check(group)
