"""What each term asks of the model, against gradients taken one by one."""

import math

import pytest
import torch

from slrctl.core.cmcl import CrossModalConsistencyLoss
from slrctl.core.cmcl.diagnostics import gradient_measures, in_one_row, term_gradients
from slrctl.core.cmcl.loss import LossTerms
from slrctl.core.model import SiFormer
from slrctl.settings import CMCLSettings


def measures_of(terms: LossTerms, weights: list[torch.nn.Parameter]) -> dict[str, float]:
    gradients = term_gradients(terms, weights)
    return gradient_measures({name: in_one_row(g, weights) for name, g in gradients.items()})


def test_norms_and_cosines_equal_those_of_separate_backward_passes(
    tiny_settings, batch, num_classes
):
    model = SiFormer(tiny_settings.model, num_classes, seed=1).eval()
    loss = CrossModalConsistencyLoss(CMCLSettings(lambda_consistency=0.2, lambda_alignment=0.3))
    terms = loss(model(batch, return_attention=True, return_features=True), batch)

    measures = measures_of(terms, list(model.parameters()))

    def gradient(term, factor):
        model.zero_grad()
        (factor * term).backward(retain_graph=True)
        return [
            value
            for parameter in model.parameters()
            for value in (
                [0.0] * parameter.numel()
                if parameter.grad is None
                else parameter.grad.flatten().tolist()
            )
        ]

    own = gradient(terms.classification, 1.0)
    for name, factor in (("consistency", 0.2), ("alignment", 0.3)):
        its = gradient(getattr(terms, name), factor)
        norm = math.sqrt(sum(value**2 for value in its))
        own_norm = math.sqrt(sum(value**2 for value in own))
        dot = sum(a * b for a, b in zip(own, its, strict=True))
        assert measures[f"gradient_norm_{name}"] == pytest.approx(norm, rel=1e-4)
        assert measures[f"gradient_cosine_{name}"] == pytest.approx(
            dot / norm / own_norm, rel=1e-3, abs=1e-5
        )
        assert measures["gradient_norm_classification"] == pytest.approx(own_norm, rel=1e-4)


def test_a_term_that_reaches_nothing_has_norm_and_cosine_zero():
    weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    other = torch.nn.Parameter(torch.tensor([1.0]))
    terms = LossTerms(weight.sum(), (weight**2).sum(), other.sum(), None, 0.5, 0.0)

    measures = measures_of(terms, [weight])

    assert measures == {
        "gradient_norm_classification": 10.0,
        "gradient_norm_consistency": 0.0,
        "gradient_cosine_consistency": 0.0,
    }
