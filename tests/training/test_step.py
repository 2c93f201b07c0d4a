"""A step whose batch is cut into micro-batches, and the update of the parameters."""

from dataclasses import replace

import pytest
import torch
from clips import whole_batches
from torch import nn
from torch.testing import assert_close

from slrctl.core.cmcl.alignment import Contrast
from slrctl.core.cmcl.diagnostics import gradient_measures
from slrctl.core.data import batches
from slrctl.core.data.batches import MicroBatch
from slrctl.errors import TrainingDiverged
from slrctl.settings import Settings, merge
from slrctl.training import step
from slrctl.training.loop import BatchReport, TrainingData, train_epochs
from slrctl.training.processes import SINGLE
from slrctl.training.state import TrainingState
from slrctl.training.step import GradientRow, train_step

CPU = torch.device("cpu")
CMCL = {"preset": "balanced", "lambda_consistency": 0.1, "lambda_alignment": 0.05}
NEVER = 10**9


# The default model, small; every clip has 8 frames.
DEFAULT = {
    "model": {"name": "streamformer", "embed_dim": 16, "joint_dim": 16, "num_heads": 2},
    "prepare": {"num_frames": 8},
}


def first_steps(tiny_settings, splits, count=3, **changes):
    """The state after some steps, and their reports."""
    settings = Settings.layered(tiny_settings.model_dump(), {"cmcl": CMCL}, changes)
    state = TrainingState.initial(settings, splits.train.classes, CPU)
    reports = []
    for report in train_epochs(state, TrainingData.of_splits(splits, settings, CPU)):
        if isinstance(report, BatchReport):
            reports.append(report)
        if len(reports) == count:
            break
    assert len(reports) == count
    return state, reports


@pytest.fixture
def cut(monkeypatch):
    """Let a micro-batch on a CPU have about so many frames."""
    return lambda frames: monkeypatch.setattr(batches, "FRAMES_OF_MICRO_BATCH", frames)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"cmcl": {"temporal": True}},
        {"cmcl": {"alignment": "contrastive", "multi_scale": True}},
        {"train": {"accumulate": 2}},
        {"cmcl": {"alignment": "contrastive"}, "train": {"accumulate": 4}},
        merge(DEFAULT, {"model": {"dropout": 0.0, "pooling_dropout": 0.0}}),
    ],
)
def test_micro_batches_have_the_gradients_of_the_whole_batch(
    tiny_settings, tiny_splits, cut, changes
):
    changes = {"model": {"dropout": 0.0}, **changes}
    cut(NEVER)
    at_once = changes | {"train": {"accumulate": 1}}
    whole, (expected,) = first_steps(tiny_settings, tiny_splits, count=1, **at_once)
    cut(20)
    cut_up, (report,) = first_steps(tiny_settings, tiny_splits, count=1, **changes)

    assert_close(report.means, expected.means, rtol=1e-5, atol=1e-6)
    assert_close(report.gradients, expected.gradients, rtol=1e-4, atol=1e-6)
    for name, tensor in whole.tensors().items():
        if name.startswith("optimizer.exp_avg."):  # a tenth of the gradient
            assert_close(cut_up.tensors()[name], tensor, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("changes", [{}, {"train": {"precision": "bf16"}}, DEFAULT])
@pytest.mark.parametrize("form", [{}, {"alignment": "contrastive"}])
def test_steps_have_the_same_bits_on_one_thread_and_on_two(
    tiny_settings, tiny_splits, cut, threads, changes, form
):
    cut(20)
    changes = {"model": {"dropout": 0.1}, "cmcl": CMCL | form, **changes}
    threads(1)
    alone, expected = first_steps(tiny_settings, tiny_splits, **changes)
    threads(2)
    together, reports = first_steps(tiny_settings, tiny_splits, **changes)

    assert reports == expected
    assert_close(together.tensors(), alone.tensors(), rtol=0, atol=0)


def test_the_micro_batches_of_a_batch_draw_different_dropout(
    tiny_settings, tiny_splits, cut, monkeypatch
):
    changes = {"model": {"dropout": 0.1}}
    cut(20)
    _, reports = first_steps(tiny_settings, tiny_splits, count=1, **changes)
    monkeypatch.setattr(step, "_dropout_seed", lambda state, index: 0)
    _, alike = first_steps(tiny_settings, tiny_splits, count=1, **changes)

    assert reports[0].means["loss"] != alike[0].means["loss"]


def test_dropout_depends_on_the_index_of_a_micro_batch_and_not_on_its_company(
    tiny_settings, tiny_splits
):
    settings = Settings.layered(tiny_settings.model_dump(), {"model": {"dropout": 0.5}})
    first, second = whole_batches(tiny_splits.train, settings, 0)

    def loss_of(*micro_batches):
        state = TrainingState.initial(settings, tiny_splits.train.classes, CPU)
        train_step(state, micro_batches, 1e-3, SINGLE)
        sums, counts = state.progress.totals.sums, state.progress.totals.counts
        return sums["loss"] / counts["loss"] * sum(len(one.clips) for one in micro_batches)

    both = loss_of(MicroBatch(0, first), MicroBatch(3, second))
    apart = loss_of(MicroBatch(0, first)) + loss_of(MicroBatch(3, second))
    assert both == pytest.approx(apart, rel=1e-5)
    assert loss_of(MicroBatch(0, first)) != loss_of(MicroBatch(3, first))


def test_contrastive_alignment_is_differentiated_at_the_embeddings_it_was_computed_from(
    tiny_settings, tiny_splits, cut, monkeypatch
):
    cut(20)
    first, second, of_batch, per_clip = [], [], Contrast.of_batch, Contrast.per_clip
    monkeypatch.setattr(
        Contrast, "of_batch", lambda scales, *rest: first.append(scales) or of_batch(scales, *rest)
    )
    monkeypatch.setattr(
        Contrast, "per_clip", lambda self, scales: second.append(scales) or per_clip(self, scales)
    )

    changes = {"model": {"dropout": 0.5}, "cmcl": {"alignment": "contrastive"}}
    first_steps(tiny_settings, tiny_splits, count=1, **changes)

    assert len(second) > 1
    assert torch.equal(first[0], torch.cat(second, dim=2))


def test_accumulation_computes_one_share_at_a_time(tiny_settings, tiny_splits, monkeypatch, cut):
    cut(12)
    seen = []
    compute_in_turn = step.map_on

    def watched(device, function, items, *, at_once=None):
        seen.append((len(items), at_once))
        return compute_in_turn(device, function, items, at_once=at_once)

    monkeypatch.setattr(step, "map_on", watched)
    first_steps(tiny_settings, tiny_splits, count=1, train={"accumulate": 2})
    first_steps(tiny_settings, tiny_splits, count=1, train={"accumulate": 4})
    first_steps(tiny_settings, tiny_splits, count=1)

    assert seen == [(4, 2), (4, 1), (2, 2)]


def test_a_terms_gradient_is_measured_as_by_a_backward_pass_of_its_own(
    tiny_settings, tiny_splits, cut
):
    cut(20)
    _, (report,) = first_steps(tiny_settings, tiny_splits, count=1, model={"dropout": 0.0})
    settings = Settings.layered(
        tiny_settings.model_dump(), {"cmcl": CMCL}, {"model": {"dropout": 0.0}}
    )
    state = TrainingState.initial(settings, tiny_splits.train.classes, CPU)
    batch = next(whole_batches(tiny_splits.train, settings, 0))
    model = state.model.train()
    output = model(batch, return_hand_attention=True, return_features=True)
    terms = state.loss(output, batch)

    gradients = {}
    for name, term in terms.terms.items():
        model.zero_grad()
        (terms.lambdas[name] * term).backward(retain_graph=True)
        flat = [p.grad.flatten() if p.grad is not None else p.new_zeros(p.numel())
                for p in model.parameters()]  # fmt: skip
        gradients[name] = torch.cat(flat)

    assert_close(report.gradients, gradient_measures(gradients), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("frames", [20, NEVER])
def test_a_gradient_that_is_not_finite_is_named_and_no_step_is_taken(
    tiny_settings, tiny_splits, cut, frames
):
    cut(frames)
    state, _ = first_steps(tiny_settings, tiny_splits, count=1)
    before = {name: tensor.clone() for name, tensor in state.tensors().items()}
    weight = state.model.get_parameter("classifier.weight")
    weight.register_hook(lambda gradient: gradient * torch.inf)

    with pytest.raises(
        TrainingDiverged, match=r"epoch 1, step 2: the gradient is (nan|inf)"
    ) as caught:
        list(train_epochs(state, TrainingData.of_splits(tiny_splits, state.settings, CPU)))

    assert any(clip.clip_id in str(caught.value) for clip in tiny_splits.train)
    assert state.progress.step == 1
    for name, tensor in state.tensors().items():
        assert torch.equal(tensor, before[name]), name


def parameters_of(*shapes):
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def test_a_row_adds_gradients_up_and_knows_which_parameters_they_reached():
    first, second, third = parameters_of((2, 3), (2, 3), ())
    row, shared = GradientRow([first, second, third]), torch.ones(2, 3)

    row.add([shared, shared, None])
    row.add([shared, torch.tensor([[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]).t(), None])

    assert torch.equal(row.views[0], torch.full((2, 3), 2.0))
    assert torch.equal(row.views[1], torch.tensor([[2.0, 3.0, 4.0], [5.0, 6.0, 7.0]]))
    assert torch.equal(row.gradient, torch.cat([*(v.flatten() for v in row.views)]))
    assert row.reached.tolist() == [2, 2, 0]
    assert torch.equal(shared, torch.ones(2, 3))


def test_the_norm_has_the_same_bits_on_any_number_of_threads(threads):
    (weight,) = parameters_of((1000, 1000))
    row = GradientRow([weight])
    row.add([weight.detach()])

    norms = []
    for count in (1, 2, 3):
        threads(count)
        norms.append(row.norm())

    assert len(set(norms)) == 1
    assert norms[0] == pytest.approx(float(weight.detach().double().norm()), rel=1e-5)


def test_one_update_is_the_one_worked_out_by_hand(tiny_settings):
    weight, other = (nn.Parameter(torch.tensor([1.0, -2.0])) for _ in range(2))
    settings = Settings.layered(tiny_settings.model_dump(), {"train": {"clip_gradient": 1.0}})
    state = TrainingState.initial(settings, ("a", "b"), CPU)
    optimizer = torch.optim.AdamW([weight, other], weight_decay=0.1, fused=True)
    state = replace(state, optimizer=optimizer)
    row = GradientRow([weight, other])
    row.add([torch.tensor([3.0, -4.0]), None])

    step._update(state, row, 0.01, row.norm())

    assert row.norm() == pytest.approx(1.0)
    assert weight.grad is not None
    assert_close(weight.grad, torch.tensor([0.6, -0.8]))
    # After one update both moments, with their bias taken out, are the gradient and its square: so
    # the weight shrinks by a thousandth of itself and goes one rate against its gradient's sign.
    expected = torch.tensor([1.0 * 0.999 - 0.01, -2.0 * 0.999 + 0.01])
    assert_close(weight.detach(), expected, rtol=0, atol=1e-6)
    # A parameter that nothing reached stays, without moments.
    assert torch.equal(other, torch.tensor([1.0, -2.0]))
    assert set(optimizer.state) == {weight}
