"""CMCL, the Cross-Modal Consistency Loss: its terms, its schedule, its diagnostics."""

from slrctl.core.cmcl.alignment import alignment_loss, contrastive_loss
from slrctl.core.cmcl.consistency import consistency_loss, cycle_loss, temporal_loss
from slrctl.core.cmcl.loss import (
    AdaptiveCMCL,
    CrossModalConsistencyLoss,
    LossTerms,
    adaptive_factor,
)

__all__ = [
    "AdaptiveCMCL",
    "CrossModalConsistencyLoss",
    "LossTerms",
    "adaptive_factor",
    "alignment_loss",
    "consistency_loss",
    "contrastive_loss",
    "cycle_loss",
    "temporal_loss",
]
