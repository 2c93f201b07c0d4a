"""The kernels of training on a CPU against the plain functions, with the same masks."""

import errno
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from numba.core.caching import IndexDataCacheFile
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from slrctl.core.cmcl import CrossModalConsistencyLoss
from slrctl.core.model import attention, cpu
from slrctl.core.model.attention import attention_scores, attention_weights, split_heads
from slrctl.core.model.siformer import SiFormer, build_model
from slrctl.core.model.transformer import FeedForward
from slrctl.core.seeding import counter_bits, scoped_seed
from slrctl.settings import CMCLSettings

CPU = torch.device("cpu")
B, H, LANES, SCALE = 3, 2, 16, 65536 / (65536 - 13107)  # of a rate of 0.2
NEVER = 1e-9  # a rate at which nothing is dropped


def hidden_mask(rate, num_rows, width, seed=1):
    """Recover the factors of the hidden units, 0 or the scale."""
    expand, contract = nn.Linear(width, width), nn.Linear(width, width)
    for linear in (expand, contract):
        nn.init.zeros_(linear.bias)
        nn.init.eye_(linear.weight)
    with torch.no_grad(), scoped_seed(seed, CPU):
        return cpu.feed_forward(torch.ones(1, num_rows, width), expand, contract, rate)[0]


def weights_mask(rate, num_queries, key_mask, num_heads=H, seed=1):
    """Recover the factors of the weights, `B H Q T`, from the messages of one-hot values."""
    num_clips, num_keys = key_mask.shape
    columns = []
    for first in range(0, num_keys, LANES):
        one_hot = torch.eye(num_keys)[:, first : first + LANES]
        one_hot = nn.functional.pad(one_hot, (0, LANES - one_hot.shape[1]))
        value = one_hot.repeat(num_clips, 1, num_heads)
        query = torch.zeros(num_clips, num_queries, num_heads * LANES)
        with torch.no_grad(), scoped_seed(seed, CPU):
            heads = cpu.attend(query, torch.zeros_like(value), value, key_mask, num_heads, rate)
        columns.append(split_heads(heads, num_heads))
    count = key_mask.sum(-1).clamp(min=1)[:, None, None, None]
    return torch.cat(columns, -1)[..., :num_keys] * count


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_hidden_units_are_dropped_at_the_rate_and_scaled_up(rate):
    mask = hidden_mask(rate, 500, 200)

    deviation = (rate * (1 - rate) / mask.numel()) ** 0.5
    assert_close(mask.unique(), torch.tensor([0, 1 / (1 - rate)]), rtol=2e-4, atol=0)
    assert abs((mask == 0).double().mean().item() - rate) < 4 * deviation + 2**-16


def test_weights_are_dropped_at_the_rate_and_scaled_up():
    mask = weights_mask(0.2, 300, torch.ones(B, 90, dtype=torch.bool))

    deviation = (0.2 * 0.8 / mask.numel()) ** 0.5
    assert_close(mask.max(), torch.tensor(SCALE))
    assert ((mask < 1e-6) | ((mask - SCALE).abs() < 1e-5)).all()
    assert abs((mask < 1e-6).double().mean().item() - 0.2) < 4 * deviation + 2**-16


def test_a_mask_is_bits_of_splitmix64():
    key = torch.randint(2**63 - 1, (1,), generator=torch.Generator().manual_seed(1)).item()
    words = counter_bits(np.array([key], np.uint64), 30 * 50)
    expected = words.view("<u2").reshape(30, 200) >= 13107

    assert np.array_equal(hidden_mask(0.2, 30, 200).numpy() > 0, expected)


@pytest.mark.parametrize("distance", [(0, 1), (0, 4), (1, 0), (3, 5)])
def test_hidden_units_are_dropped_independently(distance):
    dropped = (hidden_mask(0.3, 1000, 400) == 0).double()
    down, right = distance

    both = dropped[down:, right:] * dropped[: 1000 - down, : 400 - right]

    assert abs(both.mean().item() - 0.09) < 4 * (0.09 * 0.91 / both.numel()) ** 0.5


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_weights_of_neighbours_are_dropped_independently(axis):
    dropped = (weights_mask(0.3, 200, torch.ones(6, 60, dtype=torch.bool), 5) < 1e-6).double()
    size = dropped.shape[axis]

    both = dropped.narrow(axis, 1, size - 1) * dropped.narrow(axis, 0, size - 1)

    assert abs(both.mean().item() - 0.09) < 4 * (0.09 * 0.91 / both.numel()) ** 0.5


def test_a_seed_repeats_its_mask_and_another_differs():
    first, again, other = (hidden_mask(0.5, 20, 64, seed) for seed in (1, 1, 2))

    assert torch.equal(first, again)
    assert 0.4 < (first == other).double().mean().item() < 0.6


def attended(function, inputs, gradient):
    """Return the messages, and the gradients of queries, keys and values."""
    inputs = [x.clone().requires_grad_() for x in inputs]
    heads = function(*inputs)
    return [heads.detach(), *torch.autograd.grad(heads, inputs, gradient)]


@pytest.mark.parametrize("num_heads", [1, 2, 3, 6])
@pytest.mark.parametrize(("num_queries", "num_keys"), [(1, 1), (1, 40), (16, 16), (17, 9), (33, 3)])
# At 9 some keys have all the weight, and gradients are the difference of numbers 81 times as large.
@pytest.mark.parametrize(("size", "tolerance"), [(1.0, 2e-6), (9.0, 2e-5)])
def test_attention_equals_the_plain_one_with_the_same_mask(
    rng, num_heads, num_queries, num_keys, size, tolerance
):
    query, key, value, gradient = (
        torch.randn(B, n, 12, generator=rng) for n in (num_queries, num_keys, num_keys, num_queries)
    )
    key_mask = torch.rand(B, num_keys, generator=rng) > 0.4
    key_mask[0], key_mask[1] = True, False
    inputs = size * query, size * key, value
    mask = weights_mask(0.2, num_queries, key_mask, num_heads)

    def plain(query, key, value):
        weights = attention_weights(attention_scores(query, key, num_heads), key_mask)
        return attention.join_heads((weights * mask.to(weights)) @ split_heads(value, num_heads))

    with scoped_seed(1, CPU):
        results = attended(
            lambda q, k, v: cpu.attend(q, k, v, key_mask, num_heads, 0.2), inputs, gradient
        )
    exact = attended(plain, [x.double() for x in inputs], gradient.double())

    for result, expected in zip(results, exact, strict=True):
        largest = max(1.0, expected.abs().max().item())
        assert_close(result.double(), expected, atol=tolerance * largest, rtol=0)


@pytest.mark.parametrize("num_rows", [1, 300])  # 300 rows of 2,048 units are two blocks
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 0.01)])
def test_the_feed_forward_equals_the_plain_one_with_the_same_mask(rng, num_rows, dtype, tolerance):
    layer = FeedForward(6, 2048, 0.2)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5, generator=rng)
    features, gradient = (torch.randn(1, num_rows, 6, generator=rng) for _ in range(2))
    mask = hidden_mask(0.2, num_rows, 2048)

    def rounded(numbers):
        return numbers.to(dtype).float()

    def plain(x):
        # Rounded where the kernel rounds: a unit near 0 is on the same side of it in both.
        weight, bias = rounded(layer.expand.weight), rounded(layer.expand.bias)
        units = rounded(F.linear(rounded(x), weight, bias)).relu() * (mask > 0)
        outputs = rounded(F.linear(units, rounded(layer.contract.weight)))
        return outputs * mask.max() + layer.contract.bias

    def outcome(function):
        given = features.clone().requires_grad_()
        result = function(given)
        inputs = [given, *layer.parameters()]
        return [result.detach(), *torch.autograd.grad(result, inputs, gradient)]

    with scoped_seed(1, CPU):
        results = outcome(
            lambda x: cpu.feed_forward(x, layer.expand, layer.contract, 0.2, dtype=dtype)
        )
    expected = outcome(plain)

    for result, reference in zip(results, expected, strict=True):
        assert (result - reference).norm() <= tolerance * reference.norm()


def test_a_whole_model_and_its_loss_have_the_gradients_of_the_plain_one(tiny_settings, batch):
    settings = tiny_settings.model.model_copy(update={"dropout": NEVER})
    loss = CrossModalConsistencyLoss(CMCLSettings(lambda_consistency=0.1, lambda_alignment=0.05))

    def gradients(model):
        output = model.train()(batch, return_hand_attention=True, return_features=True)
        loss(output, batch).total.backward()
        return {name: parameter.grad for name, parameter in model.named_parameters()}

    plain, fast = (SiFormer(settings, 4, seed=1) for _ in range(2))
    cpu.use_kernels(fast, "fp32")

    assert_close(gradients(fast), gradients(plain), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", ["full", "prob", "first_frame"])
@pytest.mark.parametrize("name", ["siformer", "spoter"])
def test_evaluation_has_the_bits_of_the_plain_model(tiny_settings, batch, kind, name):
    settings = tiny_settings.model.model_copy(update={"attention": kind, "name": name})
    plain, fast = (build_model(settings, 4, seed=1).eval() for _ in range(2))
    cpu.use_kernels(fast, "bf16")

    assert torch.equal(fast(batch).logits, plain(batch).logits)


def test_asking_for_maps_changes_no_bit_of_a_training_step(tiny_settings, batch):
    model = SiFormer(tiny_settings.model, 4, seed=1)
    cpu.use_kernels(model, "fp32")
    with scoped_seed(1, CPU):
        alone = model(batch).logits
    with scoped_seed(1, CPU):
        asked = model(batch, return_attention=True, return_features=True).logits

    assert torch.equal(asked, alone)


def test_without_a_key_messages_and_gradients_are_zero(rng):
    inputs = [torch.randn(B, n, 12, generator=rng) for n in (5, 7, 7)]
    nothing = torch.zeros(B, 7, dtype=torch.bool)

    results = attended(
        lambda q, k, v: cpu.attend(q, k, v, nothing, H, 0.2), inputs, torch.ones(B, 5, 12)
    )

    assert [x.abs().max().item() for x in results] == [0, 0, 0, 0]


def test_a_key_that_is_masked_may_hold_anything(rng):
    query, key, value = (torch.randn(B, n, 12, generator=rng) for n in (5, 7, 7))
    key_mask = torch.tensor([1, 0, 1, 1, 0, 1, 0]).bool().expand(B, 7)

    def messages(elsewhere):
        other = torch.where(key_mask[..., None], key, elsewhere)
        with scoped_seed(1, CPU):
            return cpu.attend(query, other, value, key_mask, H, 0.2)

    assert torch.equal(messages(1e4), messages(torch.nan))


def test_nan_is_not_hidden(rng):
    query, key = torch.randn(B, 20, 12, generator=rng), torch.randn(B, 7, 12, generator=rng)
    everywhere, layer = torch.ones(B, 7, dtype=torch.bool), FeedForward(12, 64, 0.2)
    query[0, 2, 3] = -torch.nan

    heads = cpu.attend(query, key, key, everywhere, 1, 0.2)
    outputs = cpu.feed_forward(query, layer.expand, layer.contract, 0.2)

    for result in (heads, outputs):
        assert result[0, 2].isnan().all()
        assert result[1:].isfinite().all()


@pytest.mark.parametrize("scale", [1e3, 1e6])
def test_scores_of_any_size_give_finite_messages(rng, scale):
    frames = scale * torch.randn(B, 7, 12, generator=rng)

    heads = cpu.attend(frames, frames, frames, torch.ones(B, 7, dtype=torch.bool), H, 0.2)

    assert heads.isfinite().all()


@pytest.mark.parametrize(
    "shapes",
    [
        [(3, 5, 12), (2, 7, 12), (2, 7)],
        [(3, 5, 12), (3, 7, 12), (3, 900)],
        [(3, 5, 12), (3, 7, 12), (2, 7)],
    ],
)
def test_sizes_that_do_not_fit_together_are_refused(shapes):
    # Tests check the shapes in every signature, users do not: so a process without checks.
    script = f"""
import torch
from slrctl.core.model import cpu
query, key, mask = (torch.ones(shape) for shape in {shapes})
try:
    cpu.attend(query, key, key, mask.bool(), 3, 0.2)
except RuntimeError:
    print("refused")
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert ran.stdout == "refused\n"


def test_heads_wider_than_a_register_are_left_to_torch(tiny_settings):
    model = SiFormer(tiny_settings.model.model_copy(update={"hand_heads": 2}), 4)
    cpu.use_kernels(model, "fp32")

    attends = {m.attend for m in model.left_encoder.modules() if hasattr(m, "attend")}
    others = {m.attend for m in model.body_encoder.modules() if hasattr(m, "attend")}
    assert (attends, others) == ({attention.attend}, {cpu.attend})


@pytest.mark.parametrize("name", ["attention", "feed-forward"])
def test_a_second_derivative_is_refused(rng, name):
    frames = torch.randn(B, 7, 12, generator=rng, requires_grad=True)
    layer = FeedForward(12, 8, 0.2)
    everywhere = torch.ones(B, 7, dtype=torch.bool)
    result = {
        "attention": lambda: cpu.attend(frames, frames, frames, everywhere, H, 0.2),
        "feed-forward": lambda: cpu.feed_forward(frames, layer.expand, layer.contract, 0.2),
    }[name]()

    torch.autograd.grad(result.sum(), frames, retain_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(result.sum(), frames, create_graph=True)


RUN_ALL = """
import hashlib
import torch
from slrctl.core.model import cpu
from slrctl.core.model.transformer import FeedForward
torch.manual_seed(0)
layer, digest = FeedForward(42, 200, 0.1), hashlib.sha256()
for dtype in (torch.float32, torch.bfloat16):
    for num_frames in (60, 7):
        frames = torch.randn(3, num_frames, 42, requires_grad=True)
        key_mask = torch.rand(3, num_frames) > 0.1
        results = (
            cpu.attend(20 * frames, frames, frames, key_mask, 3, 0.1),
            cpu.feed_forward(frames, layer.expand, layer.contract, 0.1, dtype=dtype),
        )
        gradients = torch.autograd.grad(sum(x.square().sum() for x in results), frames)
        for tensor in (*results, *gradients):
            digest.update(tensor.detach().numpy().tobytes())
print(digest.hexdigest(), sum(cpu._attend.stats.cache_hits.values()))
"""


@pytest.mark.slow
def test_a_process_that_loads_the_kernels_computes_the_bits_of_one_that_compiled_them(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    compiled, loaded = (
        subprocess.run(
            [sys.executable, "-c", RUN_ALL],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for _ in range(2)
    )

    assert (compiled[1], loaded[1]) == ("0", "1")
    assert compiled[0] == loaded[0]


@pytest.mark.parametrize("method", ["save", "load"])
def test_machine_code_that_cannot_be_kept_or_read_is_compiled(monkeypatch, method):
    def fail(*arguments):
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(IndexDataCacheFile, method, fail)
    double = cpu._kernel(_double)

    assert double(21) == 42


def _double(x):
    return 2 * x
