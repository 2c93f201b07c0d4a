"""A step whose batch is cut into pieces for several threads."""

import pytest
import torch
from torch.testing import assert_close

from slrctl.core.clip import cut_batch
from slrctl.errors import TrainingDiverged
from slrctl.settings import Settings
from slrctl.training import step
from slrctl.training.loop import BatchReport, train_epochs
from slrctl.training.run_batches import training_data
from slrctl.training.state import TrainingState
from slrctl.training.step import GradientSums

CPU = torch.device("cpu")
CMCL = {"preset": "balanced", "lambda_consistency": 0.1, "lambda_alignment": 0.05}
NEVER = 10**9


def first_steps(tiny_settings, splits, count=3, **changes):
    """The state after some steps, and what they reported."""
    settings = Settings.layered(tiny_settings.model_dump(), {"cmcl": CMCL}, changes)
    state = TrainingState.initial(settings, splits.train.classes, CPU)
    reports = []
    for report in train_epochs(state, training_data(settings, splits)):
        if isinstance(report, BatchReport):
            reports.append(report)
        if len(reports) == count:
            break
    assert len(reports) == count
    return state, reports


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_cut_batch_has_every_clip_once_and_in_order(tiny_settings, tiny_splits, count):
    settings = Settings.layered(tiny_settings.model_dump(), {"train": {"batch_size": 5}})
    batch = next(training_data(settings, tiny_splits).training(0, 0))

    pieces = cut_batch(batch, count)

    sizes = [len(piece) for piece in pieces]
    assert len(sizes) == count
    assert max(sizes) - min(sizes) <= 1
    assert sum((piece.clip_ids for piece in pieces), ()) == batch.clip_ids
    for name in ("left_hand", "right_hand", "body", "is_valid", "left_is_present", "target"):
        assert torch.equal(torch.cat([getattr(p, name) for p in pieces]), getattr(batch, name))


@pytest.mark.parametrize(
    "changes", [{}, {"cmcl": {"temporal": True}}, {"train": {"accumulate": 2}}]
)
def test_pieces_have_the_gradients_of_the_whole_batch(
    tiny_settings, tiny_splits, monkeypatch, changes
):
    changes = {"model": {"dropout": 0.0}, **changes}
    monkeypatch.setattr(step, "FRAMES_OF_PIECE", NEVER)
    at_once = changes | {"train": {"accumulate": 1}}
    whole, expected = first_steps(tiny_settings, tiny_splits, count=1, **at_once)
    monkeypatch.setattr(step, "FRAMES_OF_PIECE", 20)
    cut, reports = first_steps(tiny_settings, tiny_splits, count=1, **changes)

    for module, other in ((whole.model, cut.model), (whole.loss, cut.loss)):
        for weight, its in zip(module.parameters(), other.parameters(), strict=True):
            assert_close(its.grad, weight.grad, rtol=1e-4, atol=1e-6)
            # What the optimizer made of it: it may read memory in another order than we do.
            mean = whole.optimizer.moments[weight]["exp_avg"]
            assert_close(cut.optimizer.moments[its]["exp_avg"], mean, rtol=1e-4, atol=1e-7)
    for report, wanted in zip(reports, expected, strict=True):
        assert_close(report.means, wanted.means, rtol=1e-5, atol=1e-6)
        assert_close(report.gradients, wanted.gradients, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_steps_have_the_same_bits_on_one_thread_and_on_two(
    tiny_settings, tiny_splits, monkeypatch, threads, precision
):
    monkeypatch.setattr(step, "FRAMES_OF_PIECE", 20)
    changes = {"model": {"dropout": 0.1}, "train": {"precision": precision}}
    threads(1)
    alone, expected = first_steps(tiny_settings, tiny_splits, **changes)
    threads(2)
    together, reports = first_steps(tiny_settings, tiny_splits, **changes)

    assert reports == expected
    for name, tensor in alone.tensors().items():
        assert torch.equal(together.tensors()[name], tensor), name


def test_the_pieces_of_a_batch_draw_different_dropout(tiny_settings, tiny_splits, monkeypatch):
    changes = {"model": {"dropout": 0.1}}
    monkeypatch.setattr(step, "FRAMES_OF_PIECE", 20)
    _, reports = first_steps(tiny_settings, tiny_splits, count=1, **changes)
    monkeypatch.setattr(step, "_dropout_seed", lambda state, part: 0)
    _, alike = first_steps(tiny_settings, tiny_splits, count=1, **changes)

    assert reports[0].means["loss"] != alike[0].means["loss"]


def test_the_contrastive_form_keeps_its_clips_together(tiny_settings, tiny_splits, monkeypatch):
    monkeypatch.setattr(step, "FRAMES_OF_PIECE", 20)
    monkeypatch.setattr(step, "cut_batch", None)  # must not be asked

    first_steps(tiny_settings, tiny_splits, cmcl=CMCL | {"alignment": "contrastive"})


@pytest.mark.parametrize("frames", [20, NEVER])
def test_a_gradient_that_is_not_finite_is_named_and_no_step_is_taken(
    tiny_settings, tiny_splits, monkeypatch, frames
):
    monkeypatch.setattr(step, "FRAMES_OF_PIECE", frames)
    state, _ = first_steps(tiny_settings, tiny_splits, count=1)
    before = {name: tensor.clone() for name, tensor in state.tensors().items()}
    weight = state.model.get_parameter("classifier.weight")
    weight.register_hook(lambda gradient: gradient * torch.inf)

    with pytest.raises(
        TrainingDiverged, match=r"epoch 1, step 2: the gradient is (nan|inf)"
    ) as caught:
        list(train_epochs(state, training_data(state.settings, tiny_splits)))

    assert any(clip.clip_id in str(caught.value) for clip in tiny_splits.train)
    assert state.progress.step == 1
    for name, tensor in state.tensors().items():
        assert torch.equal(tensor, before[name]), name


def test_who_accumulates_has_one_part_at_a_time(tiny_settings, tiny_splits, monkeypatch):
    monkeypatch.setattr(step, "FRAMES_OF_PIECE", 20)
    monkeypatch.setattr(step, "cut_batch", None)  # must not be asked
    monkeypatch.setattr(step, "map_in_threads", None)

    first_steps(tiny_settings, tiny_splits, train={"accumulate": 2})


def test_gradients_that_share_memory_are_added_up_apart():
    first, second, once = (torch.nn.Parameter(torch.zeros(2, 3)) for _ in range(3))
    shared, one_row = torch.ones(2, 3), torch.tensor([[1.0, 2.0, 3.0]]).expand(2, 3)
    sums = GradientSums()

    sums.add([(first, shared), (second, None), (once, shared)])
    sums.add([(first, shared), (second, shared)])
    sums.add([(first, shared), (second, one_row)])
    of_each = sums.sums()

    assert torch.equal(of_each[first], torch.full((2, 3), 3.0))
    assert torch.equal(of_each[second], torch.tensor([[2.0, 3.0, 4.0]] * 2))
    assert torch.equal(of_each[once], shared)
    assert torch.equal(shared, torch.ones(2, 3))
    places = [gradient.data_ptr() for gradient in (*of_each.values(), shared)]
    assert len(set(places)) == 4


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_gradient_that_lies_transposed_stays_so_until_the_end(count):
    weight = torch.nn.Parameter(torch.zeros(2, 3))
    sums = GradientSums()

    for _ in range(count):
        sums.add([(weight, torch.arange(6.0).view(3, 2).t())])
    of_weight = sums.sums()[weight]

    assert of_weight.stride() == (1, 2)
    assert torch.equal(of_weight, count * torch.tensor([[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]))
