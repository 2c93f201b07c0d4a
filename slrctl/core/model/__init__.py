"""The models, and the one function that builds what the settings name."""

from slrctl.core.model.siformer import SiFormer
from slrctl.core.model.spoter import Spoter
from slrctl.settings import ModelSettings


def build_model(settings: ModelSettings, num_classes: int, *, seed: int = 0) -> SiFormer | Spoter:
    """The model that `model.name` names, with initial values from the seed."""
    if settings.name == "spoter":
        return Spoter(settings, num_classes, seed=seed)
    return SiFormer(settings, num_classes, seed=seed)
