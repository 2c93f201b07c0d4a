"""The optimizer beside torch's own class, of which it is the update alone."""

import math
import subprocess
import sys

import pytest
import torch
from torch import nn

from slrctl.core.devices import one_thread
from slrctl.training.state import AdamW

RATES = (1e-2, 3e-3, 1e-3)


def weights_and_gradients(seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(5, 3), (5,), (), (2, 0), (400, 400)]
    weights = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    gradients = [
        [size * torch.randn(shape, generator=generator) for shape in shapes]
        for size in (0.1, 1.0, 0.01)
    ]
    return weights, gradients


@pytest.mark.parametrize("num_threads", [1, 2, 3])
@pytest.mark.parametrize("largest_norm", [math.inf, 100.0])
@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_weights_become_bit_for_bit_those_of_torchs_own_optimizer(
    threads, num_threads, largest_norm, decay
):
    threads(num_threads)
    ours, gradients = weights_and_gradients()
    its, _ = weights_and_gradients()
    optimizer = AdamW(ours, decay)
    expected = torch.optim.AdamW(its, betas=(0.9, 0.999), weight_decay=decay, fused=True)
    norms = []

    for rate, step in zip(RATES, gradients, strict=True):
        expected.param_groups[0]["lr"] = rate
        for weight, other, gradient in zip(ours, its, step, strict=True):
            weight.grad, other.grad = gradient.clone(), gradient.clone()
        norms.append(optimizer.gradient_norm())
        optimizer.step(rate, norms[-1], largest_norm)
        with one_thread():
            assert norms[-1] == nn.utils.clip_grad_norm_(its, largest_norm)
        expected.step()

    assert min(norms) < 100 < max(norms)
    assert not torch.equal(ours[0], weights_and_gradients()[0][0])
    for weight, other in zip(ours, its, strict=True):
        assert torch.equal(weight, other)
        for key, value in expected.state[other].items():
            assert torch.equal(optimizer.moments[weight][key], value)


def test_the_norm_has_the_same_bits_on_any_number_of_threads(threads):
    # Rows with a gap between them: torch shares the sum of such a tensor out between its threads.
    rows = torch.randn(2048, 43, generator=torch.Generator().manual_seed(0))
    weight = nn.Parameter(torch.zeros(2048, 42))
    weight.grad = rows[:, :42]

    norms = []
    for count in (1, 2, 3):
        threads(count)
        norms.append(AdamW([weight], 0.0).gradient_norm())

    assert len(set(norms)) == 1
    assert norms[0] == pytest.approx(float(rows[:, :42].double().norm()), rel=1e-5)


def test_one_update_is_the_one_worked_out_by_hand():
    weight = nn.Parameter(torch.tensor([1.0, -2.0]))
    weight.grad = torch.tensor([3.0, -4.0])
    optimizer = AdamW([weight], weight_decay=0.1)

    norm = optimizer.gradient_norm()
    optimizer.step(0.01, norm, largest_norm=1.0)

    assert norm == 5
    torch.testing.assert_close(weight.grad, torch.tensor([0.6, -0.8]))
    # After one update both moments, with their bias taken out, are the gradient and its square: so
    # each weight shrinks by a thousandth of itself and goes one rate against its gradient's sign.
    expected = torch.tensor([1.0 * 0.999 - 0.01, -2.0 * 0.999 + 0.01])
    torch.testing.assert_close(weight.detach(), expected, rtol=0, atol=1e-6)


def test_a_gradient_that_lies_transposed_moves_the_elements_it_belongs_to():
    one, other = (nn.Parameter(torch.zeros(2, 3)) for _ in range(2))
    one.grad = torch.tensor([[1.0, -2.0], [3.0, -4.0], [0.0, 6.0]]).t()
    other.grad = one.grad.contiguous()

    AdamW([one, other], 0.0).step(0.1, 1.0)

    assert torch.equal(one, other)
    assert torch.equal(one.sign(), -one.grad.sign())


def test_a_weight_without_a_gradient_stays_and_has_no_moments():
    (reached, other, *_), _ = weights_and_gradients()
    before = other.detach().clone()
    reached.grad = torch.ones_like(reached)
    optimizer = AdamW([reached, other], 0.01)

    optimizer.step(0.1, 1.0)
    optimizer.forget_gradients()

    assert torch.equal(other, before)
    assert optimizer.moments.keys() == {reached}
    assert reached.grad is None


def test_moments_that_are_put_back_go_on_to_the_same_bits():
    (weight, *_), gradients = weights_and_gradients()
    optimizer = AdamW([weight], 0.01)
    weight.grad = gradients[0][0]
    optimizer.step(1e-2, 1.0)
    copy = nn.Parameter(weight.detach().clone())
    resumed = AdamW([copy], 0.01)
    for key, value in optimizer.moments[weight].items():
        resumed.put_back(copy, key, value)

    for one, own in ((optimizer, weight), (resumed, copy)):
        own.grad = gradients[1][0]
        one.step(3e-3, 1.0)

    assert torch.equal(weight, copy)


def test_a_training_does_not_load_torchs_compiler(tmp_path):
    program = """
import sys
from slrctl.cli import app

small = "--glosses=2 --train-signers=1 --test-signers=0 --repetitions=2"
app(["data", "synth", "clips.parquet", *small.split()], standalone_mode=False)
app(["train", "--train", "clips.parquet", "--epochs=1"], standalone_mode=False)
print("compiler:", "torch._dynamo" in sys.modules)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert result.returncode == 0, result.stderr
    assert "compiler: False" in result.stdout
