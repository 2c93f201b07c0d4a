"""The models, and the one function that builds what the settings name."""

import torch

from slrctl.core.model.siformer import SiFormer
from slrctl.core.model.spoter import Spoter
from slrctl.settings import ModelSettings


def build_model(settings: ModelSettings, num_classes: int, *, seed: int = 0) -> SiFormer | Spoter:
    """The model that `model.name` names, with initial values from the seed."""
    if settings.name == "spoter":
        return Spoter(settings, num_classes, seed=seed)
    return SiFormer(settings, num_classes, seed=seed)


def num_parameters(settings: ModelSettings, num_classes: int) -> int:
    """How many weights the named model has, counted without giving them memory or values."""
    with torch.device("meta"):
        model = build_model(settings, num_classes)
    return sum(parameter.numel() for parameter in model.parameters())
