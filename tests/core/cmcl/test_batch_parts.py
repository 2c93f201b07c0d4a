"""The parts of a batch add up to the loss of the whole and to its gradient."""

import dataclasses

import pytest
import torch
from clips import prepared_clip
from torch.testing import assert_close

from slrctl.core.clip import collate
from slrctl.core.cmcl import CrossModalConsistencyLoss
from slrctl.core.cmcl.batch_parts import ClipCounts
from slrctl.core.model import SiFormer
from slrctl.settings import CMCLSettings

FORMS = [
    {},
    {"consistency": "cycle"},
    {"consistency": "cycle", "temporal": True},
    {"temporal": True, "multi_scale": True},
]


@pytest.fixture
def clips(rng):
    """Seven clips, of which some lack a hand throughout, or but for a frame or every other one."""
    made = [prepared_clip(rng, f"clip {number}", 8, str(number % 4)) for number in range(7)]
    made[0].landmarks[:, 12:33] = float("nan")
    made[1].landmarks[1:, 33:54] = float("nan")
    made[2].landmarks[::2, 12:33] = float("nan")
    made[3].landmarks[:, 12:54] = float("nan")
    return made


def cut(clips, num_parts):
    return [collate(clips[number::num_parts], ["0", "1", "2", "3"]) for number in range(num_parts)]


def summed(model, loss, parts, num_workers=1):
    """The terms and the gradient of some parts, added up under their weights."""
    counts = [ClipCounts.of(part, loss.settings) for part in parts]
    whole = ClipCounts.total(counts)
    values, parameters = torch.zeros(4), [*model.parameters(), *loss.parameters()]
    model.zero_grad()
    loss.zero_grad()
    for part, own in zip(parts, counts, strict=True):
        output = model(
            part, return_attention=True, return_features=True, return_layer_features=True
        )
        weights = own.weights_in(whole, loss.settings, num_workers=num_workers)
        terms = loss(output, part, weights=weights)
        terms.total.backward()
        values += torch.stack(terms[:4]).detach()
    return values, torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("num_parts", [2, 3, 7])
def test_parts_add_up_to_the_whole(tiny_settings, clips, form, num_parts):
    settings = CMCLSettings(lambda_consistency=0.2, lambda_alignment=0.3, **form)
    model = SiFormer(tiny_settings.model, 4, seed=1).eval()
    loss = CrossModalConsistencyLoss(settings, label_smoothing=0.1, num_encoder_layers=2)

    whole, gradient = summed(model, loss, cut(clips, 1))
    values, its_gradient = summed(model, loss, cut(clips, num_parts))

    assert_close(values, whole)
    assert_close(its_gradient, gradient, atol=1e-6, rtol=1e-4)


def test_a_stand_in_counts_for_nothing(clips):
    settings = CMCLSettings(lambda_consistency=0.2, lambda_alignment=0.3)
    (part,) = cut(clips, 1)
    absent = torch.zeros_like(part.is_valid)
    stand_in = dataclasses.replace(
        part, left_is_present=absent, right_is_present=absent, clip_ids=()
    )

    counts = ClipCounts.of(stand_in, settings)

    assert counts == (0, 0, 0, 0, 0)
    assert counts.weights_in(ClipCounts.of(part, settings), settings) == (0, 0, 0, 0)


def test_the_weight_of_a_part_is_its_share_of_the_clips_a_term_is_over():
    own, whole = ClipCounts(3, 2, 1, 3, 2), ClipCounts(8, 4, 3, 6, 4)

    weights = own.weights_in(whole, CMCLSettings(), num_workers=2)

    assert weights == pytest.approx((0.75, 1.0, 2 / 3, 1.0))
