"""SiFormer's forward pass in plain NumPy, from the tensors of a checkpoint alone.

Written from `docs/method.md` (SiFormer, Cross-modal attention fusion), without the model's code.
"""

import numpy as np


def layer_norm(x, tensors, name):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]


def linear(x, tensors, name):
    return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]


def attend(queries, keys, is_there, tensors, name, num_heads):
    """The message of every query, and the weights of every head."""
    q, k, v = (
        linear(x, tensors, f"{name}.{kind}_projection")
        for x, kind in ((queries, "query"), (keys, "key"), (keys, "value"))
    )
    width = q.shape[1] // num_heads
    weights, heads = [], []
    for head in range(num_heads):
        part = slice(head * width, (head + 1) * width)
        scores = q[:, part] @ k[:, part].T / np.sqrt(width)
        exps = np.exp(scores - scores.max(-1, keepdims=True)) * is_there
        total = exps.sum(-1, keepdims=True)
        weights.append(exps / np.where(total > 0, total, 1))
        heads.append(weights[-1] @ v[:, part])
    message = linear(np.concatenate(heads, -1), tensors, f"{name}.output_projection")
    return message * is_there.any(), np.stack(weights)


def feed_forward(x, tensors, name):
    hidden = np.maximum(linear(x, tensors, f"{name}.expand"), 0)
    return linear(hidden, tensors, f"{name}.contract")


def encode(x, tensors, name, num_layers, num_heads):
    x = x + tensors[f"{name}.positions"][: len(x)]
    everywhere = np.ones(len(x), bool)
    for number in range(num_layers):
        layer = f"{name}.layers.{number}"
        message, _ = attend(x, x, everywhere, tensors, f"{layer}.attention.attention", num_heads)
        x = layer_norm(x + message, tensors, f"{layer}.norm_attention")
        x = layer_norm(
            x + feed_forward(x, tensors, f"{layer}.feed_forward"),
            tensors,
            f"{layer}.norm_feed_forward",
        )
    return layer_norm(x, tensors, f"{name}.norm")


def classify(clip, tensors, settings):
    """Logits, the six maps, gates and norms of one prepared clip `T 54 2` with NaN."""
    model = settings.model
    there = {
        "left": np.isfinite(clip[:, 12:33]).all(-1).any(-1),
        "right": np.isfinite(clip[:, 33:54]).all(-1).any(-1),
        "body": np.ones(len(clip), bool),
    }
    values = np.nan_to_num(clip.astype(np.float64))
    x = {
        "left": values[:, 12:33].reshape(len(clip), -1),
        "right": values[:, 33:54].reshape(len(clip), -1),
        "body": values[:, :12].reshape(len(clip), -1),
    }
    for part in x:
        heads = model.body_heads if part == "body" else model.hand_heads
        x[part] = encode(x[part], tensors, f"{part}_encoder", model.num_encoder_layers, heads)
    fused, maps, gates, norms = {}, {}, {}, {}
    for part in x:
        others = [other for other in x if other != part]
        messages = {}
        for other in others:
            name = f"fusion.{part}_from_{other}"
            projected = linear(x[other], tensors, f"{name}.other_projection")
            messages[other], maps[f"{part}_to_{other}"] = attend(
                x[part], projected, there[other], tensors, f"{name}.attention", model.fusion_heads
            )
        joined = np.concatenate([x[part], *messages.values()], -1)
        gate = 1 / (1 + np.exp(-linear(joined, tensors, f"fusion.update_{part}.gate")))
        total = x[part] + gate * sum(messages.values())
        fused[part] = layer_norm(total, tensors, f"fusion.update_{part}.norm")
        gates[part] = gate
        norms[part] = np.stack(
            [
                np.linalg.norm(x[part] if other == part else gate * messages[other], axis=-1)
                for other in x
            ],
            -1,
        )
    logits = decode(np.concatenate([fused[p] for p in x], -1), tensors, model)
    return logits, maps, gates, norms, there


def decode(memory, tensors, model):
    query = tensors["decoder.class_query"]
    everywhere = np.ones(len(memory), bool)
    for number in range(model.num_decoder_layers):
        layer = f"decoder.layers.{number}"
        query = layer_norm(2 * query, tensors, f"{layer}.norm_query")
        message, _ = attend(
            query, memory, everywhere, tensors, f"{layer}.attention", model.decoder_heads
        )
        query = layer_norm(query + message, tensors, f"{layer}.norm_attention")
        query = layer_norm(
            query + feed_forward(query, tensors, f"{layer}.feed_forward"),
            tensors,
            f"{layer}.norm_feed_forward",
        )
    return linear(layer_norm(query, tensors, "decoder.norm"), tensors, "classifier")[0]
