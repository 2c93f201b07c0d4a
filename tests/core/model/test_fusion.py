"""The fusion: maps, gates, absent hands."""

import pytest
import torch
from torch.testing import assert_close

from slrctl.core.model.fusion import CrossModalAttentionFusion, StreamPresence, Streams
from slrctl.core.model.siformer import SiFormer
from slrctl.core.seeding import initialise

B, T, HAND, BODY, HEADS = 2, 5, 6, 3, 3


@pytest.fixture
def fusion():
    fusion = CrossModalAttentionFusion(HAND, BODY, HEADS, dropout=0.0)
    initialise(fusion, 1)
    for name, parameter in fusion.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.uniform_(parameter, -1, 1, generator=torch.Generator().manual_seed(2))
    return fusion.eval()


@pytest.fixture
def streams(rng):
    return Streams(
        torch.randn(B, T, HAND, generator=rng),
        torch.randn(B, T, HAND, generator=rng),
        torch.randn(B, T, BODY, generator=rng),
    )


@pytest.fixture
def present():
    return StreamPresence(
        torch.tensor([[1, 1, 0, 0, 1], [0, 0, 0, 0, 0]], dtype=torch.bool),
        torch.tensor([[0, 1, 1, 1, 0], [1, 1, 1, 0, 0]], dtype=torch.bool),
        torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], dtype=torch.bool),
    )


DIRECTIONS = {
    "left_to_right": "right_hand",
    "left_to_body": "body",
    "right_to_left": "left_hand",
    "right_to_body": "body",
    "body_to_left": "left_hand",
    "body_to_right": "right_hand",
}


@pytest.mark.parametrize(("direction", "other"), DIRECTIONS.items())
def test_a_map_spreads_over_the_frames_where_the_other_part_is_present(
    fusion, streams, present, direction, other
):
    weights, keys = fusion(streams, present).maps[direction], getattr(present, other)

    expected = keys.any(-1).float()[:, None, None].expand(B, HEADS, T)
    assert_close(weights.sum(-1), expected)
    assert not weights.masked_select(~keys[:, None, None, :]).any()


def test_a_stream_is_its_own_plus_the_gated_messages(fusion, streams, present):
    fused = fusion(streams, present).streams
    left, right, body = streams

    from_right, _ = fusion.left_from_right(left, right, present.right_hand)
    from_body, _ = fusion.left_from_body(left, body, present.body)
    update = fusion.update_left
    gate = torch.sigmoid(
        torch.cat([left, from_right, from_body], -1) @ update.gate.weight.T + update.gate.bias
    )
    expected = torch.nn.functional.layer_norm(
        left + gate * (from_right + from_body), (HAND,), update.norm.weight, update.norm.bias
    )

    assert_close(fused.left_hand, expected)


def test_a_hand_that_never_shows_sends_a_message_of_zero(fusion, streams, present):
    message, weights = fusion.right_from_left(
        streams.right_hand, streams.left_hand, present.left_hand, return_attention=True
    )

    assert not message[1].any()
    assert not weights[1].any()
    assert message[0].any()


def test_what_an_absent_hand_would_hold_changes_nothing(fusion, streams, present):
    hidden = torch.where(present.left_hand[..., None], streams.left_hand, 50.0)

    fused = fusion(streams, present).streams
    changed = fusion(streams._replace(left_hand=hidden), present).streams

    assert_close(changed.right_hand, fused.right_hand)
    assert_close(changed.body, fused.body)


def test_swapping_hands_and_their_weights_swaps_the_results(fusion, streams, present):
    swapped = CrossModalAttentionFusion(HAND, BODY, HEADS, dropout=0.0).eval()
    weights = {_other_side(name): weight for name, weight in fusion.state_dict().items()}
    # The body's gate reads itself, left, right: the last two blocks of columns swap as well.
    own, left, right = weights["update_body.gate.weight"].split(BODY, dim=1)
    weights["update_body.gate.weight"] = torch.cat([own, right, left], dim=1)
    swapped.load_state_dict(weights)

    fused, attention, _ = fusion(streams, present)
    mirrored, mirrored_attention, _ = swapped(
        Streams(streams.right_hand, streams.left_hand, streams.body),
        StreamPresence(present.right_hand, present.left_hand, present.body),
    )

    assert_close(mirrored.left_hand, fused.right_hand)
    assert_close(mirrored.body, fused.body)
    assert_close(mirrored_attention["left_to_right"], attention["right_to_left"])


def _other_side(name: str) -> str:
    return name.replace("left", "\0").replace("right", "left").replace("\0", "right")


def test_the_maps_between_the_hands_are_those_among_all_six(tiny_settings, batch, num_classes):
    model = SiFormer(tiny_settings.model, num_classes, seed=1).eval()

    hands = model(batch, return_hand_attention=True)
    every = model(batch, return_attention=True)

    assert hands.attention is None
    for name in ("left_to_right", "right_to_left"):
        assert torch.equal(getattr(hands.hand_attention, name), getattr(every.attention, name))
        assert torch.equal(getattr(every.hand_attention, name), getattr(every.attention, name))
    assert torch.equal(hands.logits, every.logits)
