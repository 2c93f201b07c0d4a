"""Call slrctl in this process, and read what it said."""

from rich.text import Text
from typer.testing import CliRunner, Result

from slrctl.cli import app

# A model that trains in a second: 8 training clips, two steps an epoch.
TINY = [
    "--set=model.embed_dim=16",
    "--set=model.joint_dim=16",
    "--set=evaluate.resamples=100",
    "--epochs=2",
    "--batch-size=4",
]


def call(*arguments: object) -> Result:
    """Run `slrctl ARGUMENTS` in this process; an exception that is a bug is raised."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def plain(result: Result) -> str:
    """Return the text that a terminal would show, without colours."""
    return Text.from_ansi(result.output).plain
