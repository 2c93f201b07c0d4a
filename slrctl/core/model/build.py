"""The models by name."""

import torch

from slrctl.core.model.plain import PlainNetwork
from slrctl.core.model.siformer import SiFormer, Spoter
from slrctl.core.model.streamformer import StreamFormer
from slrctl.core.skeleton import BODY_WIDTH, HAND_WIDTH
from slrctl.settings import ModelSettings

Model = StreamFormer | SiFormer | Spoter | PlainNetwork


def build_model(settings: ModelSettings, num_classes: int, *, seed: int = 0) -> Model:
    """Build the model that `model.name` names, with initial values from the seed."""
    match settings.name:
        case "streamformer":
            return StreamFormer(settings, num_classes, seed=seed)
        case "siformer":
            return SiFormer(settings, num_classes, seed=seed)
        case "spoter":
            return Spoter(settings, num_classes, seed=seed)
        case "gru" | "conv":
            return PlainNetwork(settings, num_classes, seed=seed)


def num_parameters(settings: ModelSettings, num_classes: int) -> int:
    """Count the parameters of the named model, without memory or values for them."""
    with torch.device("meta"):
        model = build_model(settings, num_classes)
    return sum(parameter.numel() for parameter in model.parameters())


def stream_dims(settings: ModelSettings) -> tuple[int, int, int]:
    """Return the widths of the left hand's, right hand's and body's features after the fusion."""
    if settings.name == "streamformer":
        return settings.embed_dim, settings.embed_dim, settings.embed_dim
    return HAND_WIDTH, HAND_WIDTH, BODY_WIDTH


def num_stream_layers(settings: ModelSettings) -> int:
    """Return the layers of a stream's encoder."""
    if settings.name == "streamformer":
        return settings.num_stream_layers
    return settings.num_encoder_layers
