"""Facts that must hold for the default model: size, independence, gradients, maps."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from clips import signing_clip
from plain_rotary import plain_weights
from torch.nn import functional as F
from torch.testing import assert_close

from slrctl.core.clip import ClipBatch, collate
from slrctl.core.cmcl.loss import build_loss
from slrctl.core.data.batches import clip_batch
from slrctl.core.model.build import build_model
from slrctl.core.model.explain import explain
from slrctl.core.model.fusion import CrossModalAttention, HandAttention
from slrctl.core.model.streamformer import StreamFormer
from slrctl.core.seeding import scoped_seed
from slrctl.settings import ModelSettings, Settings

PARAMETERS = 512_360
CLASSES = ["0", "1", "2", "3"]
ASKED = ["attention", "features", "layer_features", "hand_attention"]
# The stream that is read in each direction.
READ = {
    "left_to_right": "right_is_present",
    "left_to_body": "is_valid",
    "right_to_left": "left_is_present",
    "right_to_body": "is_valid",
    "body_to_left": "left_is_present",
    "body_to_right": "right_is_present",
}


@pytest.fixture
def model(small_settings) -> Any:
    """The model as it is after some training: its gates are open."""
    settings = small_settings.model.model_copy(update={"num_stream_layers": 2})
    model = build_model(settings, 4, seed=3).eval()
    assert isinstance(model, StreamFormer)
    assert model.fusion is not None
    for gate in model.fusion.gates:
        torch.nn.init.uniform_(gate, -1, 1, generator=torch.Generator().manual_seed(4))
    return model


def batch_of(*seeds_and_lengths: tuple[int, int], settings: Settings) -> ClipBatch:
    clips = [signing_clip(seed, length, CLASSES[seed % 4]) for seed, length in seeds_and_lengths]
    return clip_batch(clips, CLASSES, settings, is_canonical=True)


def pad_to(batch: ClipBatch, num_frames: int) -> ClipBatch:
    """Add padding of zeros, as batches have it."""
    extra = num_frames - batch.is_valid.shape[1]
    changes = {
        name: F.pad(value, (0, 0) * (value.ndim - 2) + (0, extra))
        for name, value in vars(batch).items()
        if torch.is_tensor(value) and value.ndim > 1
    }
    return replace(batch, **changes)


def rows(batch: ClipBatch, *order: int) -> ClipBatch:
    """Take some clips of a batch, at the same padded length."""
    changes = {
        name: value[list(order)] for name, value in vars(batch).items() if torch.is_tensor(value)
    }
    return replace(batch, clip_ids=tuple(batch.clip_ids[row] for row in order), **changes)


def test_the_default_model_has_at_most_a_million_parameters():
    model = StreamFormer(ModelSettings(), 100)

    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS <= 1_000_000


@torch.no_grad()
def test_other_batch_mates_change_no_bit_of_a_clips_logits(model, small_settings, threads):
    threads(1)
    some = batch_of((1, 12), (2, 9), (3, 10), settings=small_settings)
    others = batch_of((5, 12), (1, 12), (7, 6), settings=small_settings)

    assert torch.equal(model(some).logits[0], model(others).logits[1])


@torch.no_grad()
def test_padding_and_the_batch_size_change_no_prediction(model, small_settings):
    lengths = [(1, 12), (2, 9), (3, 10), (4, 1)]
    together = model(batch_of(*lengths, settings=small_settings)).logits

    padded = model(pad_to(batch_of(*lengths, settings=small_settings), 20)).logits
    alone = torch.cat([model(batch_of(one, settings=small_settings)).logits for one in lengths])

    assert_close(padded, together, atol=1e-5, rtol=0)
    assert_close(alone, together, atol=1e-5, rtol=0)
    assert torch.equal(alone.argmax(-1), together.argmax(-1))


@torch.no_grad()
def test_no_message_comes_from_a_hand_that_never_shows(model, placed_batch):
    messages = explain(model, placed_batch).messages

    # The second clip has no left hand.
    assert messages is not None
    assert not messages.right_hand.first_message[1].any()
    assert not messages.body.first_message[1].any()
    assert messages.body.second_message[1].any()
    assert messages.right_hand.first_message[0].any()


@torch.no_grad()
@pytest.mark.parametrize("asked", [*([name] for name in ASKED), ASKED], ids=[*ASKED, "all"])
@pytest.mark.parametrize("is_training", [False, True])
def test_asking_for_more_changes_no_bit_of_the_logits(model, placed_batch, asked, is_training):
    model.train(is_training)
    wanted = {f"return_{name}": True for name in asked}

    with scoped_seed(1, torch.device("cpu")):
        plain = model(placed_batch)
    with scoped_seed(1, torch.device("cpu")):
        output = model(placed_batch, **wanted)

    assert torch.equal(output.logits, plain.logits)
    assert all(getattr(plain, name) is None for name in ASKED)
    assert all(getattr(output, name) is not None for name in asked)


@torch.no_grad()
@pytest.mark.parametrize(("name", "mask"), READ.items(), ids=READ)
def test_a_map_spreads_over_the_frames_that_show_the_other_stream(model, placed_batch, name, mask):
    keys = getattr(placed_batch, mask)

    weights = getattr(model(placed_batch, return_attention=True).attention, name)

    assert weights.shape == (3, 2, 12, 12)
    assert_close(weights.sum(-1), keys.any(-1).float()[:, None, None].expand(3, 2, 12))
    assert not weights.masked_select(~keys[:, None, None]).any()


@torch.no_grad()
def test_the_maps_between_the_hands_are_those_among_all_six(model, placed_batch):
    hands = model(placed_batch, return_hand_attention=True)
    every = model(placed_batch, return_attention=True)

    assert isinstance(hands.hand_attention, HandAttention)
    assert isinstance(every.attention, CrossModalAttention)
    assert hands.attention is None
    for name in HandAttention._fields:
        assert torch.equal(getattr(hands.hand_attention, name), getattr(every.attention, name))
        assert torch.equal(getattr(every.hand_attention, name), getattr(every.attention, name))


@torch.no_grad()
def test_an_explanation_holds_the_six_maps_and_that_of_the_class_query(model, placed_batch):
    explained = explain(model, placed_batch)

    (of_query,) = explained.decoder
    assert explained.fusion is not None
    assert_close(
        tuple(explained.fusion), tuple(model(placed_batch, return_attention=True).attention)
    )
    assert explained.encoders == ()
    assert_close(of_query.sum(-1), torch.ones(3, 1, 1))
    assert not of_query[:, 0, 0][~placed_batch.is_valid].any()


@torch.no_grad()
@pytest.mark.parametrize(("name", "mask"), READ.items(), ids=READ)
def test_maps_and_messages_of_the_fusion_equal_a_plain_loop(model, placed_batch, name, mask):
    fusion, own = model.fusion, model(placed_batch, return_layer_features=True).layer_features[-1]
    reader, read = (["left", "right", "body"].index(one) for one in name.split("_to_"))
    keys = getattr(placed_batch, mask)

    def heads(place, first):
        """Two heads of 8 features from column `first` of the projection on."""
        projected = fusion.projections[place](fusion.norms[place](own[place]))
        return projected[..., first : first + 16].unflatten(-1, (2, 8)).transpose(1, 2)

    explained = explain(model, placed_batch)

    expected = plain_weights(heads(reader, 0), heads(read, 16), fusion.log_scale, keys)
    assert_close(getattr(explained.fusion, name), expected, rtol=1e-4, atol=1e-5)
    values = torch.cat([*(expected @ heads(read, 32)).unbind(1)], dim=-1)
    assert explained.messages is not None
    gated = explained.messages[reader]
    is_first = list(READ).index(name) % 2 == 0
    message = gated.first_message if is_first else gated.second_message
    assert_close(message, values @ fusion.outputs[reader].weight.T, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_stream_is_its_own_plus_the_gated_messages(model, placed_batch):
    output = model(placed_batch, return_features=True, return_layer_features=True)
    messages = explain(model, placed_batch).messages

    assert messages is not None
    for own, fused, one, gate in zip(
        output.layer_features[-1], output.features, messages, model.fusion.gates, strict=True
    ):
        assert_close(fused, own + gate * (one.first_message + one.second_message))


@torch.no_grad()
def test_streams_are_encoded_apart(model, placed_batch):
    changed = replace(
        placed_batch,
        right_hand=placed_batch.right_hand.flip(1),
        placed=torch.cat([placed_batch.placed[:, :, :33], placed_batch.placed[:, :, 33:] + 1], 2),
    )

    before, after = (
        model(batch, return_layer_features=True).layer_features[-1]
        for batch in (placed_batch, changed)
    )

    assert torch.equal(after.left_hand, before.left_hand)
    assert torch.equal(after.body, before.body)
    assert not torch.equal(after.right_hand, before.right_hand)


@torch.no_grad()
def test_an_untrained_fusion_changes_no_bit(small_settings, placed_batch):
    without = small_settings.model.model_copy(update={"cross_attention": False})

    with_fusion = build_model(small_settings.model, 4, seed=1).eval()
    alone = build_model(without, 4, seed=1).eval()

    assert torch.equal(with_fusion(placed_batch).logits, alone(placed_batch).logits)
    assert len(with_fusion.state_dict()) > len(alone.state_dict())


@torch.no_grad()
@pytest.mark.parametrize("layers", [{}, {"num_joint_layers": 0}, {"num_stream_layers": 2}])
def test_reversing_the_frames_changes_the_logits(small_settings, layers):
    model = build_model(small_settings.model.model_copy(update=layers), 4, seed=3).eval()
    clip = signing_clip(1, 12)
    backwards = replace(clip, landmarks=clip.landmarks[::-1].copy())

    logits = [model(clip_batch([c], None, small_settings)).logits for c in (clip, backwards)]

    assert (logits[0] - logits[1]).abs().max() > 1e-4


def train_step(model, loss, batch, optimizer):
    wanted = {"return_hand_attention": True, "return_features": True, "return_layer_features": True}
    optimizer.zero_grad()
    terms = loss(model(batch, **wanted), batch)
    terms.total.backward()
    optimizer.step()
    return terms


def test_every_parameter_has_a_gradient_once_the_gates_have_opened(small_settings):
    settings = with_cmcl(small_settings)
    model = build_model(settings.model, 4, seed=3).train()
    loss = build_loss(settings)
    batch = batch_of(*((seed, 12) for seed in range(8)), settings=settings)
    optimizer = torch.optim.AdamW([*model.parameters(), *loss.parameters()], lr=1e-2)

    for _ in range(2):
        train_step(model, loss, batch, optimizer)

    without = [
        name
        for module in (model, loss)
        for name, parameter in module.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert without == []


def with_cmcl(settings: Settings, **changes: object) -> Settings:
    balanced = {"preset": "balanced", "lambda_consistency": 0.1, "lambda_alignment": 0.05}
    return Settings.layered(settings.model_dump(), {"cmcl": {**balanced, **changes}})


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"consistency": "cycle"},
        {"temporal": True},
        {"alignment": "contrastive"},
        {"multi_scale": True},
    ],
    ids=str,
)
def test_each_form_of_cmcl_has_gradients(small_settings, placed_batch, form):
    settings = with_cmcl(small_settings, **form)
    layers = {"num_stream_layers": 2}
    settings = Settings.layered(settings.model_dump(), {"model": layers})
    model: Any = build_model(settings.model, 4, seed=3).train()
    loss = build_loss(settings)
    wanted = {"return_hand_attention": True, "return_features": True, "return_layer_features": True}
    terms = loss(model(placed_batch, **wanted), placed_batch)

    projected = model.fusion.projections[0].weight
    projection = model.hand_encoder.projection.weight
    assert terms.consistency is not None
    assert terms.alignment is not None
    of_maps = torch.autograd.grad(terms.consistency, projected, retain_graph=True)
    of_features = torch.autograd.grad(terms.alignment, [projection, *loss.parameters()])
    assert all(
        gradient.any() and gradient.isfinite().all() for gradient in (*of_maps, *of_features)
    )


def test_a_batch_of_collated_clips_is_refused(model):
    with pytest.raises(ValueError, match="clip_batch"):
        model(collate([signing_clip(1, 4)]))


@pytest.mark.parametrize("asked", ["return_attention", "return_hand_attention"])
def test_attention_of_a_model_without_fusion_is_refused(small_settings, placed_batch, asked):
    without = small_settings.model.model_copy(update={"cross_attention": False})

    with pytest.raises(ValueError, match="cross_attention = true"):
        build_model(without, 4)(placed_batch, **{asked: True})


def test_it_fits_one_batch(small_settings, placed_batch):
    still = {"dropout": 0.0, "pooling_dropout": 0.0}
    model = build_model(small_settings.model.model_copy(update=still), 4, seed=3).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        F.cross_entropy(model(placed_batch).logits, placed_batch.target).backward()
        optimizer.step()

    assert torch.equal(model.eval()(placed_batch).logits.argmax(-1), placed_batch.target)
