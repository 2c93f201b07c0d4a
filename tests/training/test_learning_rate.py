import pytest

from slrctl.settings import TrainSettings
from slrctl.training.loop import learning_rate

PEAK = 0.4


def rate(epoch, share=0.0, **changes):
    settings = TrainSettings(epochs=10, learning_rate=PEAK, warmup_epochs=0, **changes)
    return learning_rate(settings, epoch, share)


@pytest.mark.parametrize(
    ("epoch", "factor"), [(0, 1), (5, 1), (6, 0.1), (7, 0.1), (8, 0.01), (9, 0.01)]
)
def test_multistep_falls_at_60_and_at_80_percent(epoch, factor):
    assert rate(epoch, 0.5, schedule="multistep") == pytest.approx(PEAK * factor)


@pytest.mark.parametrize(("epoch", "factor"), [(0, 1.0), (5, 0.5), (10, 0.0)])
def test_cosine_falls_from_the_peak_to_zero(epoch, factor):
    assert rate(epoch, schedule="cosine") == pytest.approx(PEAK * factor)


def test_constant_stays():
    assert {rate(epoch, schedule="constant") for epoch in range(10)} == {PEAK}


def test_the_warmup_rises_to_the_peak_and_its_first_step_is_not_idle():
    settings = TrainSettings(epochs=10, learning_rate=PEAK, warmup_epochs=2, schedule="constant")
    rates = [learning_rate(settings, epoch, share) for epoch in (0, 1) for share in (0.0, 0.5)]

    assert rates[0] > 0
    assert rates[1:] == pytest.approx([PEAK * 0.25, PEAK * 0.5, PEAK * 0.75])
    assert learning_rate(settings, 2, 0.0) == PEAK


def test_cosine_is_counted_from_the_end_of_the_warmup():
    settings = TrainSettings(epochs=10, learning_rate=PEAK, warmup_epochs=2, schedule="cosine")

    assert learning_rate(settings, 2, 0.0) == pytest.approx(PEAK)
    assert learning_rate(settings, 6, 0.0) == pytest.approx(PEAK / 2)
