"""The only module that prints: tables, lines, JSON, errors; and what signals do to a command."""

import json
import os
import re
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from slrctl.errors import Interrupted, ReportedElsewhere, SlrctlError, launched_rank

if TYPE_CHECKING:
    from slrctl.training.processes import StopRequest

# Windows has no hang-up.
_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
_SHOW_CURSOR = b"\x1b[?25h"

# Control characters; halves of characters, which cannot be encoded; and marks of direction, which
# have no place in a line of ours, as joiners have in Persian and in Hindi.
_COMMAND = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


@contextmanager
def report_errors() -> Iterator[None]:
    """Turn an expected failure into one line on standard error and its exit code."""
    try:
        yield
    except KeyboardInterrupt:
        _complain("interrupted")
        raise typer.Exit(Interrupted.exit_code) from None
    except SlrctlError as error:
        if not isinstance(error, ReportedElsewhere):
            _complain(str(error) if isinstance(error, Interrupted) else f"error: {error}")
        raise typer.Exit(error.exit_code) from None


@contextmanager
def stopping_on_signals(stop: "StopRequest | None" = None) -> Iterator[None]:
    """Let the first signal ask for a stop inside the block, and a second one end the process.

    Without a `stop` to ask, the block ends with a KeyboardInterrupt. A hang-up that is ignored, as
    under nohup, stays ignored.
    """
    handled = [
        number
        for number in _SIGNALS
        if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN
    ]

    def receive(number: int, frame: FrameType | None) -> None:
        for one in handled:
            signal.signal(one, signal.SIG_DFL)
        if stop is None:
            raise KeyboardInterrupt
        if stop.is_awaited and launched_rank() == 0:
            _say("stopping after this step, to save it; once more stops at once and loses it\n")
        stop.ask()

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


@contextmanager
def told_if_output_is_lost() -> Iterator[None]:
    """Report in one line that standard output cannot be written, as on a full disk.

    If the reader of a pipe has left, nothing is said.
    """
    _open_what_is_closed()
    output = sys.stdout = _Watched(sys.stdout)
    try:
        try:
            yield
        finally:
            output.flush()
    except (OSError, SystemExit):
        if output.lost is None:
            raise
        if not isinstance(output.lost, BrokenPipeError):
            _complain(
                f"error: standard output cannot be written ({output.lost.strerror}); make room, "
                "or send it elsewhere"
            )
        # What is still in the buffer goes nowhere, or Python would say the same again at the end.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, output.fileno())
        os.close(nowhere)
        raise SystemExit(1) from None


def _open_what_is_closed() -> None:
    """Let a closed stream lead nowhere, or the next file to be opened would take its place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            mode = "r" if number == 0 else "w"
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))


class _Watched:
    """A stream that remembers why it could not be written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost: OSError | None = None

    def write(self, text: str) -> int:
        with self._watched():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._watched():
            self._stream.flush()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.lost = error
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def visible(text: str) -> str:
    """Write out the characters of a stranger's text that command a terminal.

    An escape sequence in a gloss could recolour, move or hide what is printed after it, and marks
    of writing direction could turn a line round.
    """
    return _COMMAND.sub(lambda command: ascii(command[0])[1:-1], text)


class Display:
    """The output of a command: text for people, and one JSON object for programs.

    Text goes to standard output, or to standard error where standard output gets JSON. Text of a
    user's file is never read as markup.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        stream = sys.stderr if as_json else sys.stdout
        # A pipe has no width to fit lines to, and a folded line is hard to search.
        width = None if stream.isatty() else 200
        self.as_json = as_json
        self.console = Console(stderr=as_json, quiet=quiet, highlight=False, width=width)

    def json(self, value: Mapping[str, Any]) -> None:
        """Print the object, if JSON is wanted, with what commands a terminal as an escape."""
        if self.as_json:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False)
            safe = _COMMAND.sub(lambda command: f"\\u{ord(command[0]):04x}", text)
            sys.stdout.write(safe + "\n")

    def lines(self, *lines: str | Text) -> None:
        for line in lines:
            text = line if isinstance(line, Text) else Text(visible(line))
            self.console.print(text, soft_wrap=not self.console.is_terminal)

    def facts(self, facts: Mapping[str, str]) -> None:
        """Print a short list of names and what they are."""
        width = max(map(len, facts))
        for name, fact in facts.items():
            self.lines(Text.assemble((f"{name:<{width}}  ", "bold cyan"), visible(fact)))

    def table(
        self,
        title: str,
        headings: Sequence[str],
        rows: Iterable[Sequence[str]],
        *,
        num_texts: int = 1,
    ) -> None:
        """Print a table whose first columns are text and whose others are numbers."""
        table = Table(title=Text(visible(title)), title_justify="left", title_style="bold")
        for number, heading in enumerate(headings):
            justify = "left" if number < num_texts else "right"
            table.add_column(heading, justify=justify, overflow="fold")
        for row in rows:
            table.add_row(*(Text(visible(cell)) for cell in row))
        self.console.print(table)


def _complain(message: str) -> None:
    """Print one line, whatever the message holds."""
    sys.stderr.write(visible(" ".join(message.split())) + "\n")
