"""What `slrctl ablate` can be told."""

from pathlib import Path
from typing import Annotated

import typer

StudyOption = Annotated[
    str,
    typer.Option(
        "--study", help="cmcl, cmcl-forms, encoder, preparation, or a TOML file of variants."
    ),
]
VariantOption = Annotated[
    list[str] | None,
    typer.Option(
        "--variant",
        metavar="NAME:SECTION.KEY=VALUE,...",
        help="A variant of your own, instead of the study's; may be repeated.",
    ),
]
GridOption = Annotated[
    list[str] | None,
    typer.Option(
        "--grid",
        metavar="SECTION.KEY=VALUE,...",
        help="All combinations of values; may be repeated.",
    ),
]
SeedsOption = Annotated[
    int | None, typer.Option("--seeds", min=1, help="Paired seeds; 9 unless said.")
]
FoldsOption = Annotated[
    str | None,
    typer.Option("--folds", metavar="signer", help="Leave one signer out, each in turn."),
]
QuickOption = Annotated[
    bool, typer.Option("--quick", help="Two seeds of three epochs: a look, no verdict.")
]
PlanOption = Annotated[
    float | None,
    typer.Option(
        "--plan",
        metavar="DIFFERENCE",
        help="Say how many seeds would show this difference in accuracy, such as 0.01.",
    ),
]
JobsOption = Annotated[
    int | None, typer.Option("--jobs", min=1, help="Trials at a time; else one a core.")
]
ThreadsOption = Annotated[
    int, typer.Option("--threads", min=1, help="Threads of a trial, whatever else runs.")
]
RayOption = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="[HOST:PORT]",
        help="Run trials on this Ray cluster; without an address on one started here.",
    ),
]
OutputOption = Annotated[
    Path | None, typer.Option("--output", help="Folder of the report; else under studies/.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be run, and how long, and stop.")
]
