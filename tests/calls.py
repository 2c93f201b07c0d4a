"""Call slrctl in this process, and read what it said."""

from rich.text import Text
from typer.testing import CliRunner, Result

from slrctl.cli import app


def call(*arguments: object) -> Result:
    """The end of `slrctl ARGUMENTS`; what is not an end but a bug is raised."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def plain(result: Result) -> str:
    """What a terminal would show, without colours."""
    return Text.from_ansi(result.output).plain
