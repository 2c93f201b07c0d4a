"""The models by name, from one seed."""

import pytest
import torch

from slrctl.core.model.build import build_model, num_parameters, num_stream_layers, stream_dims
from slrctl.core.model.plain import PlainNetwork
from slrctl.core.model.siformer import SiFormer, Spoter
from slrctl.core.model.streamformer import StreamFormer
from slrctl.settings import ModelSettings

MODELS = {
    "streamformer": StreamFormer,
    "siformer": SiFormer,
    "spoter": Spoter,
    "gru": PlainNetwork,
    "conv": PlainNetwork,
}
NAMES = pytest.mark.parametrize("name", MODELS)


def small(name, **changes):
    return ModelSettings(name=name, embed_dim=16, joint_dim=24, ffn_dim=8, **changes)


@NAMES
def test_a_name_builds_its_model_and_counts_its_parameters(name):
    model = build_model(small(name), 7)

    assert isinstance(model, MODELS[name])
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert num_parameters(small(name), 7) == parameters
    assert model.classifier.out_features == 7


@NAMES
def test_two_seeds_differ_at_initialisation_and_one_seed_repeats(name):
    first, again, other = (
        build_model(small(name), 7, seed=seed).state_dict() for seed in (1, 1, 2)
    )

    assert all(torch.equal(first[key], value) for key, value in again.items())
    drawn = [key for key, value in first.items() if value.std() > 0 and "positions" not in key]
    assert len(drawn) > 5
    assert [key for key in drawn if torch.equal(first[key], other[key])] == []


@NAMES
def test_building_a_model_leaves_torchs_global_generator_alone(name):
    torch.manual_seed(5)
    before = torch.get_rng_state()

    build_model(small(name), 7, seed=1)

    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["streamformer", "siformer"])
def test_without_the_fusion_every_other_weight_starts_the_same(name):
    with_fusion = build_model(small(name), 7, seed=1).state_dict()
    without = build_model(small(name, cross_attention=False), 7, seed=1).state_dict()

    assert set(with_fusion) - set(without) == {n for n in with_fusion if n.startswith("fusion.")}
    assert all(torch.equal(with_fusion[name], value) for name, value in without.items())


@pytest.mark.parametrize("name", ["streamformer", "siformer"])
def test_the_widths_and_layers_of_the_streams_are_those_that_a_model_gives(name, placed_batch):
    settings = small(name, num_stream_layers=2, num_encoder_layers=1)
    output = build_model(settings, 4)(
        placed_batch, return_features=True, return_layer_features=True
    )

    assert tuple(stream.shape[-1] for stream in output.features) == stream_dims(settings)
    assert len(output.layer_features) == num_stream_layers(settings)
