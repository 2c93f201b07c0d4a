"""Facts that must hold for the plain networks: independence, order, gradients, what they lack."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from clips import signing_clip
from torch.nn import functional as F
from torch.testing import assert_close

from slrctl.core.clip import collate
from slrctl.core.data.batches import clip_batch
from slrctl.core.model.build import build_model
from slrctl.core.model.explain import explain

CLASSES = ["0", "1", "2", "3"]
NAMES = pytest.mark.parametrize("name", ["gru", "conv"])


@pytest.fixture
def build(small_settings):
    def built(name, **changes) -> Any:
        settings = small_settings.model.model_copy(update={"name": name, **changes})
        return build_model(settings, 4, seed=3)

    return built


def batch_of(settings, *seeds_and_lengths):
    clips = [signing_clip(seed, length, CLASSES[seed % 4]) for seed, length in seeds_and_lengths]
    return clip_batch(clips, CLASSES, settings, is_canonical=True)


@torch.no_grad()
@NAMES
def test_other_batch_mates_change_no_bit_of_a_clips_logits(build, small_settings, threads, name):
    threads(1)
    model = build(name).eval()
    some = batch_of(small_settings, (1, 12), (2, 9), (3, 10))
    others = batch_of(small_settings, (5, 12), (1, 12), (7, 6))

    assert torch.equal(model(some).logits[0], model(others).logits[1])


@torch.no_grad()
@NAMES
def test_padding_and_the_batch_size_change_no_prediction(build, small_settings, name):
    model = build(name).eval()
    lengths = [(1, 12), (2, 9), (3, 10), (4, 1)]

    together = model(batch_of(small_settings, *lengths)).logits
    alone = torch.cat([model(batch_of(small_settings, one)).logits for one in lengths])

    assert_close(alone, together, atol=1e-5, rtol=0)
    assert torch.equal(alone.argmax(-1), together.argmax(-1))


@torch.no_grad()
@NAMES
def test_reversing_the_frames_changes_the_logits(build, small_settings, name):
    model, clip = build(name).eval(), signing_clip(1, 12)
    backwards = replace(clip, landmarks=clip.landmarks[::-1].copy())

    logits = [model(clip_batch([c], None, small_settings)).logits for c in (clip, backwards)]

    assert (logits[0] - logits[1]).abs().max() > 1e-4


@NAMES
def test_every_parameter_has_a_gradient(build, small_settings, name):
    model = build(name).train()
    batch = batch_of(small_settings, *((seed, 12) for seed in range(8)))

    F.cross_entropy(model(batch).logits, torch.arange(8) % 4).backward()

    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@NAMES
def test_it_fits_one_batch(build, placed_batch, name):
    model = build(name, dropout=0.0, pooling_dropout=0.0).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        F.cross_entropy(model(placed_batch).logits, placed_batch.target).backward()
        optimizer.step()

    assert torch.equal(model.eval()(placed_batch).logits.argmax(-1), placed_batch.target)


@NAMES
@pytest.mark.parametrize("asked", ["attention", "features", "layer_features", "hand_attention"])
def test_maps_and_features_of_streams_are_refused(build, placed_batch, name, asked):
    with pytest.raises(ValueError, match="streamformer"):
        build(name)(placed_batch, **{f"return_{asked}": True})


@NAMES
def test_a_batch_of_collated_clips_is_refused(build, name):
    with pytest.raises(ValueError, match="clip_batch"):
        build(name)(collate([signing_clip(1, 4)]))


@torch.no_grad()
@pytest.mark.parametrize(("name", "num_layers"), [("gru", 0), ("conv", 2)])
def test_the_maps_of_a_plain_network_are_distributions_over_real_frames(
    build, placed_batch, name, num_layers
):
    explained = explain(build(name).eval(), placed_batch)

    maps = [*(layer["clip"] for layer in explained.encoders), *explained.decoder]
    assert (len(explained.encoders), len(explained.decoder)) == (num_layers, 1)
    assert (explained.fusion, explained.messages) == (None, None)
    for weights in maps:
        assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
        assert not weights.masked_select(~placed_batch.is_valid[:, None, None]).any()
