"""`slrctl data synth`."""

from pathlib import Path
from typing import Annotated

import typer

from slrctl.cli.console import console_for, print_lines, report_errors


def synth(
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Parquet file to write.")],
) -> None:
    """Make a set of signing whose truth is known, and save it."""
    with report_errors():
        from slrctl.core.data.formats.parquet import write_parquet
        from slrctl.core.data.synthetic import synthesise

        dataset = synthesise().dataset
        write_parquet(dataset.clips, output)
        print_lines(console_for(), [f"{len(dataset)} clips written to {output}"])
