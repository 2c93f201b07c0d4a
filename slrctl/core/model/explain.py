"""Every attention map of a model, and the messages between its streams.

The model runs once, with hooks: the maps are computed beside it by the modules that use them, so a
prediction has the same bits with and without.
"""

from itertools import chain
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from slrctl.core.clip import ClipBatch
from slrctl.core.model.fusion import CrossModalAttention, FusionOutput, StreamMessages
from slrctl.core.model.siformer import SiFormer, Spoter


class Explanation(NamedTuple):
    """The maps of one batch, all before dropout.

    `encoders` has an entry a layer: the self-attention of each stream, by the name of the stream
    (`left_hand`, `right_hand`, `body`; SPOTER's single one is `clip`). `decoder` has one a layer:
    the weights of the class query over the frames. Fusion and messages are None in a model whose
    streams do not read one another.
    """

    encoders: tuple[dict[str, Float[Tensor, "B _ T T"]], ...]
    fusion: CrossModalAttention | None
    messages: StreamMessages | None
    decoder: tuple[Float[Tensor, "B H 1 T"], ...]


def explain(model: SiFormer | Spoter, batch: ClipBatch) -> Explanation:
    """Run a model in evaluation mode and return every map.

    Raises:
        ValueError: the model is in training mode, where dropout would enter the maps of all layers
            but the first.
    """
    if model.training:
        raise ValueError("explain needs a model in evaluation mode; call model.eval() first")
    if isinstance(model, SiFormer):
        encoders, fusion = model.encoders(), model.fusion
    else:
        encoders, fusion = {"clip": model.encoder}, None
    by_stream = {name: _attentions(encoder.layers) for name, encoder in encoders.items()}
    decoder = _attentions(model.decoder.layers)
    weights: dict[nn.Module, Tensor] = {}
    messages: list[StreamMessages] = []

    def keep_weights(attention: Any, inputs: tuple[Tensor, ...], output: object) -> None:
        weights[attention] = attention.weights(*inputs)

    def keep_messages(fusion: nn.Module, inputs: object, output: FusionOutput) -> None:
        messages.append(output.messages)

    attentions = [*chain(*by_stream.values()), *decoder]
    hooks = [attention.register_forward_hook(keep_weights) for attention in attentions]
    if fusion is not None:
        hooks.append(fusion.register_forward_hook(keep_messages))
    try:
        output = model(batch, return_attention=fusion is not None)
    finally:
        for hook in hooks:
            hook.remove()
    return Explanation(
        encoders=tuple(
            {name: weights[attention] for name, attention in zip(by_stream, layer, strict=True)}
            for layer in zip(*by_stream.values(), strict=True)
        ),
        fusion=output.attention,
        messages=messages[0] if messages else None,
        decoder=tuple(weights[attention] for attention in decoder),
    )


def _attentions(layers: nn.ModuleList) -> list[nn.Module]:
    return [layer.get_submodule("attention") for layer in layers]
