"""What a study was run on and how, for the head of its report."""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from slrctl.cli.ablate.request import StudyRequest, splits_of

if TYPE_CHECKING:
    from slrctl.core.data.dataset import SignDataset
    from slrctl.layers import Tree


def facts(request: StudyRequest) -> list[str]:
    """The command, the clips, the settings that all trials share, and what each variant changes."""
    from slrctl.core.data.readers.reading import count_of
    from slrctl.studies.ablation.trials import source_fingerprints

    settings = request.trials[0].settings
    files = [
        path.name
        for name in ("train", "val", "test")
        if (path := getattr(settings.data, name)) is not None
    ]
    prints = source_fingerprints(settings.data)
    train = settings.train
    return [
        *_command(),
        f"data: {', '.join(files) or 'the demo set'} "
        f"({', '.join(f'{name} {value[:12]}' for name, value in prints.items())})",
        *_clips(request),
        f"{count_of(train.epochs, 'epoch')}, batch {train.batch_size}, learning rate "
        f"{train.learning_rate:g}, {train.precision}, recipe {settings.recipe}",
        f"set for all: {_listed(request.given) or 'nothing else'}",
        *(
            f"{name}: {_listed(tree) or 'nothing changed'}"
            for name, tree in request.study.variants.items()
        ),
    ]


def _command() -> Iterator[str]:
    """The command line, unless somebody calls this from a program of their own."""
    if Path(sys.argv[0]).stem == "slrctl":
        yield f"command: {shlex.join(['slrctl', *sys.argv[1:]])}"


def _clips(request: StudyRequest) -> Iterator[str]:
    """How many clips each part has, and of whom; of folds, who tests in each."""
    folds = dict.fromkeys(trial.fold for trial in request.trials)
    if len(folds) > 1:
        yield f"folds: {', '.join(str(fold) for fold in folds)} test, each in turn"
        return
    parts = splits_of(request.trials[0])
    named = {"train": parts.train, "validation": parts.val, "test": parts.test}
    yield "; ".join(f"{name} {_described(part)}" for name, part in named.items() if part)


def _described(part: "SignDataset") -> str:
    from slrctl.core.data.readers.reading import quote

    signers = sorted({clip.signer for clip in part if clip.signer is not None})
    shown = [name if name.isprintable() else quote(name) for name in signers]
    of_whom = f" of {', '.join(shown)}" if 0 < len(shown) <= 8 else ""
    return f"{len(part)} clips{of_whom}"


def _listed(tree: "Tree") -> str:
    from slrctl.layers import flatten

    return ", ".join(f"{key}={value}" for key, value in flatten(tree).items())
