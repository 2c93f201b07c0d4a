"""slrctl: recognise isolated signs from body landmarks with SiFormer and CMCL.

The names below are stable, for notebooks and other people's tests. They are loaded when they are
first used, so that `import slrctl` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slrctl.core.clip import Clip as Clip
    from slrctl.core.clip import ClipBatch as ClipBatch
    from slrctl.core.clip import collate as collate
    from slrctl.core.cmcl import AdaptiveCMCL as AdaptiveCMCL
    from slrctl.core.cmcl import CrossModalConsistencyLoss as CrossModalConsistencyLoss
    from slrctl.core.cmcl import adaptive_factor as adaptive_factor
    from slrctl.core.cmcl import alignment_loss as alignment_loss
    from slrctl.core.cmcl import consistency_loss as consistency_loss
    from slrctl.core.cmcl import contrastive_loss as contrastive_loss
    from slrctl.core.cmcl import cycle_loss as cycle_loss
    from slrctl.core.cmcl import temporal_loss as temporal_loss
    from slrctl.core.data.batches import clip_batch as clip_batch
    from slrctl.core.data.dataset import SignDataset as SignDataset
    from slrctl.core.data.dataset import load_dataset as load_dataset
    from slrctl.core.data.prepare import prepare_clip as prepare_clip
    from slrctl.core.model.fusion import CrossModalAttentionFusion as CrossModalAttentionFusion
    from slrctl.core.model.siformer import SiFormer as SiFormer
    from slrctl.core.model.siformer import SiFormerOutput as SiFormerOutput
    from slrctl.core.model.streamformer import StreamFormer as StreamFormer
    from slrctl.runs.checkpoint import LoadedRun as LoadedRun
    from slrctl.runs.checkpoint import load_run as load_run
    from slrctl.settings import Settings as Settings

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
    "clip_batch": "slrctl.core.data.batches",
    "SignDataset": "slrctl.core.data.dataset",
    "load_dataset": "slrctl.core.data.dataset",
    "prepare_clip": "slrctl.core.data.prepare",
    "CrossModalAttentionFusion": "slrctl.core.model.fusion",
    "SiFormer": "slrctl.core.model.siformer",
    "SiFormerOutput": "slrctl.core.model.siformer",
    "StreamFormer": "slrctl.core.model.streamformer",
    "LoadedRun": "slrctl.runs.checkpoint",
    "load_run": "slrctl.runs.checkpoint",
    "Settings": "slrctl.settings",
}
__all__ = list(_PLACES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'slrctl' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
