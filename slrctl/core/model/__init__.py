"""The models, and the function that builds the one the settings name."""

import torch

from slrctl.core.model.siformer import SiFormer
from slrctl.core.model.spoter import Spoter
from slrctl.settings import ModelSettings


def build_model(settings: ModelSettings, num_classes: int, *, seed: int = 0) -> SiFormer | Spoter:
    """Build the model that `model.name` names, with initial values from the seed."""
    if settings.name == "spoter":
        return Spoter(settings, num_classes, seed=seed)
    return SiFormer(settings, num_classes, seed=seed)


def num_parameters(settings: ModelSettings, num_classes: int) -> int:
    """Count the parameters of the named model, without memory or values for them."""
    with torch.device("meta"):
        model = build_model(settings, num_classes)
    return sum(parameter.numel() for parameter in model.parameters())
