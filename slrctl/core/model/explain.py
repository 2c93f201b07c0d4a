"""Every attention map of a model, and the messages between its streams.

The model runs once, with hooks: the maps are computed beside it by the modules that use them, so a
prediction has the same bits with and without.
"""

from itertools import chain
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from slrctl.core.clip import ClipBatch
from slrctl.core.model.blocks import AttentionBlock
from slrctl.core.model.build import Model
from slrctl.core.model.fusion import CrossModalAttention, FusionOutput, StreamMessages
from slrctl.core.model.plain import PlainNetwork
from slrctl.core.model.siformer import SiFormer
from slrctl.core.model.streamformer import StreamFormer


class Explanation(NamedTuple):
    """The maps of one batch, all before dropout.

    `encoders` has an entry a layer: the self-attention of each stream, by the name of the stream
    (`left_hand`, `right_hand`, `body`; the single one of a model without streams is `clip`).
    `decoder` has one a layer: the weights of the class query over the frames. Fusion and messages
    are None in a model whose streams do not read one another.
    """

    encoders: tuple[dict[str, Float[Tensor, "B _ T T"]], ...]
    fusion: CrossModalAttention | None
    messages: StreamMessages | None
    decoder: tuple[Float[Tensor, "B H 1 T"], ...]


def explain(model: Model, batch: ClipBatch) -> Explanation:
    """Run a model in evaluation mode and return every map.

    Raises:
        ValueError: the model is in training mode, where dropout would enter the maps of all layers
            but the first.
    """
    if model.training:
        raise ValueError("explain needs a model in evaluation mode; call model.eval() first")
    layers, decoder, fusion = *_attentions(model), model.fusion
    weights: dict[nn.Module, Tensor] = {}
    messages: list[StreamMessages] = []

    def keep_weights(attention: Any, inputs: tuple[Tensor, ...], output: object) -> None:
        weights[attention] = attention.weights(*inputs)

    def keep_messages(fusion: nn.Module, inputs: object, output: FusionOutput) -> None:
        messages.append(output.messages)

    attentions = [*chain(*(layer.values() for layer in layers)), *decoder]
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
            {name: weights[attention] for name, attention in layer.items()} for layer in layers
        ),
        fusion=output.attention,
        messages=messages[0] if messages else None,
        decoder=tuple(weights[attention] for attention in decoder),
    )


def _attentions(model: Model) -> tuple[list[dict[str, nn.Module]], list[nn.Module]]:
    """Return the self-attention of each encoder layer, by stream, and that of the class query."""
    if isinstance(model, StreamFormer):
        return [], [model.pooling.attention]
    if isinstance(model, PlainNetwork):
        blocks = [layer for layer in model.layers if isinstance(layer, AttentionBlock)]
        return [{"clip": block.attention} for block in blocks], [model.pooling.attention]
    encoders = model.encoders() if isinstance(model, SiFormer) else {"clip": model.encoder}
    by_stream = [
        [layer.get_submodule("attention") for layer in encoder.layers]
        for encoder in encoders.values()
    ]
    layers = [dict(zip(encoders, layer, strict=True)) for layer in zip(*by_stream, strict=True)]
    return layers, [layer.get_submodule("attention") for layer in model.decoder.layers]
