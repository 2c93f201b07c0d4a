"""What Ctrl-C, SIGTERM and the end of a terminal do to a run."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from slrctl.training.stopping import StopRequest

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
_SHOW_CURSOR = b"\x1b[?25h"


@contextmanager
def stopping_on_signals(stop: StopRequest, *, is_heard: bool = True) -> Iterator[None]:
    """Inside the block the first signal asks to stop, and a second one ends the process at once.

    A hang-up that is ignored, as under nohup, stays ignored. A process that is not the one that
    is heard, of several that train together, stops without a word.
    """
    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    handled = [
        number
        for number in numbers
        if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN
    ]

    def receive(number: int, frame: FrameType | None) -> None:
        for one in handled:
            signal.signal(one, signal.SIG_DFL)
        if stop.is_awaited and is_heard:
            _say("stopping after this step, to save it; once more stops at once and loses it\n")
        stop.ask()

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return
    before = {number: signal.signal(number, receive) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(message: str) -> None:
    """Write without buffers: the handler may have come in the middle of another line."""
    for stream, text in ((sys.stdout, b""), (sys.stderr, message.encode())):
        try:
            if stream.isatty():  # a process that ends at once leaves the bars' cursor hidden
                os.write(stream.fileno(), _SHOW_CURSOR)
            os.write(stream.fileno(), text)
        except (OSError, ValueError):  # nobody reads any more
            continue
