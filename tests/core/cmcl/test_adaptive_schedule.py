import pytest

from slrctl.core.cmcl import adaptive_factor
from slrctl.core.cmcl.schedule import default_warmup


@pytest.mark.parametrize(
    ("epoch", "factor"), [(0, 0.1), (4, 0.5), (9, 1.0), (10, 0.95), (11, 0.95**2), (99, 0.95**90)]
)
def test_the_factor_warms_up_and_decays_as_published(epoch, factor):
    assert adaptive_factor(epoch) == pytest.approx(factor)


def test_the_factor_is_never_zero():
    assert all(adaptive_factor(epoch) > 0 for epoch in range(2000))


@pytest.mark.parametrize(("epochs", "warmup"), [(1, 1), (10, 1), (11, 2), (99, 10), (100, 10)])
def test_the_warmup_is_a_tenth_of_a_short_run_and_ten_epochs_of_a_long_one(epochs, warmup):
    assert default_warmup(epochs) == warmup
