"""CMCL, the Cross-Modal Consistency Loss: its terms, its schedule, its diagnostics."""

from slrctl.core.cmcl.alignment import alignment_loss
from slrctl.core.cmcl.consistency import consistency_loss
from slrctl.core.cmcl.contrastive import contrastive_loss
from slrctl.core.cmcl.cycle import cycle_loss
from slrctl.core.cmcl.loss import AdaptiveCMCL, CrossModalConsistencyLoss, LossTerms
from slrctl.core.cmcl.schedule import adaptive_factor
from slrctl.core.cmcl.temporal import temporal_loss

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
