"""Kernels do not look where they write, so what does not fit together must not come to them.

Tests check the shapes in every signature, users do not: so a process of its own, without checks.
"""

import subprocess
import sys

import pytest

SCRIPT = """
import torch
from torch import nn
from slrctl.core.cmcl import consistency_loss
from slrctl.core.model import fast
from slrctl.core.model.attention import MultiHeadAttention
from slrctl.core.model.fusion import CrossModalAttentionFusion, StreamPresence, Streams
from slrctl.core.model.residual import residual

torch.manual_seed(0)
norm, attention = nn.LayerNorm(12), MultiHeadAttention(12, 3, 0.0)
fusion = CrossModalAttentionFusion(12, 6, 3, 0.0)

def consistency(forth, back, left, right, dtype=torch.float32):
    maps = torch.rand(forth).softmax(-1), torch.rand(back).softmax(-1).to(dtype)
    return consistency_loss(*maps, torch.ones(left).bool(), torch.ones(right).bool())

def attended(own, other, is_attended):
    return attention(torch.rand(own), torch.rand(other), torch.ones(is_attended).bool())[0]

def added(features, change):
    return residual(torch.rand(features), torch.rand(change), norm, 0.0, True)

def fused(left, right, body, *present):
    streams = Streams(torch.rand(left), torch.rand(right), torch.rand(body))
    present = [torch.ones(one).bool() for one in present or [left[:2], right[:2], body[:2]]]
    return torch.cat(fusion(streams, StreamPresence(*present))[0], dim=-1)

MAPS = (2, 3, 20, 20)
for function, *arguments in (
    (consistency, MAPS, MAPS, (2, 20), (2, 20)),
    (consistency, MAPS, (2, 3, 500, 500), (2, 20), (2, 20)),
    (consistency, MAPS, (2, 3, 12, 12), (2, 20), (2, 20)),
    (consistency, MAPS, MAPS, (2, 20), (2, 12)),
    (consistency, MAPS, MAPS, (2, 12), (2, 20)),
    (consistency, MAPS, MAPS, (2, 20), (1, 20)),
    (consistency, MAPS, (1, 3, 20, 20), (2, 20), (2, 20)),
    (consistency, MAPS, (2, 20, 20), (2, 20), (2, 20)),
    (consistency, MAPS, MAPS, (2, 20), (2, 20), torch.bfloat16),
    (attended, (3, 5, 12), (3, 7, 12), (3, 7)),
    (attended, (3, 5, 12), (2, 7, 12), (2, 7)),
    (attended, (3, 5, 12), (3, 7, 12), (3, 900)),
    (attended, (3, 5, 12), (3, 7, 12), (2, 7)),
    (attended, (3, 5, 12), (3, 7, 12), (1, 7)),
    (added, (3, 5, 12), (3, 5, 12)),
    (added, (3, 5, 12), (3, 4, 12)),
    (added, (3, 5, 12), (1, 5, 12)),
    (fused, (3, 5, 12), (3, 5, 12), (3, 5, 6)),
    (fused, (3, 5, 12), (3, 5, 12), (3, 5, 6), (1, 5), (3, 5), (3, 5)),
    (fused, (3, 5, 12), (3, 5, 12), (3, 5, 6), (3, 5), (3, 9), (3, 5)),
    (fused, (3, 5, 12), (3, 9, 12), (3, 5, 6)),
    (fused, (3, 5, 12), (3, 5, 12), (2, 5, 6)),
    (fused, (3, 5, 12), (3, 5, 12), (3, 5, 9)),
):
    found = []
    for path in (fast.plain_path, torch.enable_grad):
        torch.manual_seed(1)
        with path():
            try:
                found.append(function(*arguments).double())
            except RuntimeError:
                found.append(None)
    plain, given = found
    if plain is None or given is None:
        print("refused" if given is plain else "refused by one")
    else:
        print("equal" if torch.allclose(given, plain, rtol=1e-4, atol=1e-5) else "different")
"""


@pytest.fixture(scope="module")
def said():
    ran = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True)
    return ran.stdout.split("\n")


def test_maps_are_compared_broadcast_or_refused_as_torch_would(said):
    assert said[:9] == ["equal", *4 * ["refused"], *4 * ["equal"]]


def test_keys_are_attended_to_broadcast_or_refused_as_torch_would(said):
    assert said[9:14] == ["equal", *3 * ["refused"], "equal"]


def test_changes_are_added_broadcast_or_refused_as_torch_would(said):
    assert said[14:17] == ["equal", "refused", "equal"]


def test_streams_are_fused_broadcast_or_refused_as_torch_would(said):
    assert said[17:23] == ["equal", "equal", *4 * ["refused"]]
