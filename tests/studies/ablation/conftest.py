"""A tiny study, whose trials take seconds."""

import pytest

from slrctl.core.data.readers.parquet import write_parquet
from slrctl.layers import Layer
from slrctl.studies.ablation.study import Study
from slrctl.studies.ablation.trials import plan_trials

STUDY = Study(
    "s", {"narrow": {"model": {"ffn_dim": 8}}, "wide": {"model": {"ffn_dim": 16}}}, "wide"
)


@pytest.fixture
def tiny_path(tiny_dataset, tmp_path):
    path = tmp_path / "tiny.parquet"
    write_parquet(tiny_dataset, path)
    return path


@pytest.fixture
def plan(tiny_settings, tiny_path):
    """Plan the trials of a study on the tiny clips."""
    sections = {"prepare", "augment", "model", "train", "evaluate"}
    values = tiny_settings.model_dump(include=sections)
    tiny = Layer("tiny", {**values, "data": {"train": str(tiny_path)}})

    def planned(study=STUDY, seeds=(1,), below=(), above=()):
        return plan_trials(study, seeds, [None], [tiny, *below], list(above))

    return planned
