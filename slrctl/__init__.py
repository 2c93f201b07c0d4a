"""slrctl: recognise isolated signs from body landmarks with SiFormer and CMCL.

The names below are stable, for notebooks and other people's tests. They are loaded when they are
first used, so that `import slrctl` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slrctl.core.clip import Clip, ClipBatch, collate
    from slrctl.core.cmcl import (
        AdaptiveCMCL,
        CrossModalConsistencyLoss,
        adaptive_factor,
        alignment_loss,
        consistency_loss,
        contrastive_loss,
        cycle_loss,
        temporal_loss,
    )
    from slrctl.core.data.dataset import SignDataset, load_dataset
    from slrctl.core.data.prepare import prepare_clip
    from slrctl.core.model.fusion import CrossModalAttentionFusion
    from slrctl.core.model.siformer import SiFormer, SiFormerOutput
    from slrctl.runs.checkpoint import LoadedRun, load_run
    from slrctl.settings import Settings

_PLACES = {
    "Clip": "slrctl.core.clip",
    "ClipBatch": "slrctl.core.clip",
    "collate": "slrctl.core.clip",
    "AdaptiveCMCL": "slrctl.core.cmcl",
    "CrossModalConsistencyLoss": "slrctl.core.cmcl",
    "adaptive_factor": "slrctl.core.cmcl",
    "alignment_loss": "slrctl.core.cmcl",
    "consistency_loss": "slrctl.core.cmcl",
    "contrastive_loss": "slrctl.core.cmcl",
    "cycle_loss": "slrctl.core.cmcl",
    "temporal_loss": "slrctl.core.cmcl",
    "SignDataset": "slrctl.core.data.dataset",
    "load_dataset": "slrctl.core.data.dataset",
    "prepare_clip": "slrctl.core.data.prepare",
    "CrossModalAttentionFusion": "slrctl.core.model.fusion",
    "SiFormer": "slrctl.core.model.siformer",
    "SiFormerOutput": "slrctl.core.model.siformer",
    "LoadedRun": "slrctl.runs.checkpoint",
    "load_run": "slrctl.runs.checkpoint",
    "Settings": "slrctl.settings",
}

__all__ = [
    "AdaptiveCMCL",
    "Clip",
    "ClipBatch",
    "CrossModalAttentionFusion",
    "CrossModalConsistencyLoss",
    "LoadedRun",
    "Settings",
    "SiFormer",
    "SiFormerOutput",
    "SignDataset",
    "adaptive_factor",
    "alignment_loss",
    "collate",
    "consistency_loss",
    "contrastive_loss",
    "cycle_loss",
    "load_dataset",
    "load_run",
    "prepare_clip",
    "temporal_loss",
]


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'slrctl' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
