"""The progress of a training: means of an epoch, and the epoch that is best."""

import pytest

from slrctl.training.state import EpochTotals, Progress


def test_totals_weigh_every_mean_by_its_count():
    totals = EpochTotals()
    totals.add("loss", 1.0, 3)
    totals.add("loss", 5.0, 1)
    totals.add("never", 9.0, 0)

    assert totals.mean("loss") == 2.0
    assert totals.mean("never") is None


@pytest.mark.parametrize(
    ("accuracy", "loss", "is_best", "improved_epoch"),
    [
        (0.6, 9.0, True, 2),
        (0.5, 0.9, True, 2),
        (0.5, 1.0, True, 1),
        (0.41, 9.0, True, 1),
        (0.39, 0.1, False, 1),
    ],
)
def test_the_best_epoch_is_the_last_one_within_the_standard_error_of_the_highest_accuracy(
    accuracy, loss, is_best, improved_epoch
):
    progress = Progress()
    assert progress.judge(1, accuracy=0.5, error=0.1, loss=1.0)

    assert progress.judge(2, accuracy=accuracy, error=0.3, loss=loss) == is_best
    assert progress.best_epoch == (2 if is_best else 1)
    assert progress.best_accuracy == max(0.5, accuracy)
    assert progress.best_error == (0.3 if improved_epoch == 2 else 0.1)
    assert progress.improved_epoch == improved_epoch


def test_epochs_do_not_sink_one_standard_error_after_the_other():
    progress = Progress()

    judged = [
        progress.judge(epoch, accuracy=accuracy, error=0.1, loss=1.0)
        for epoch, accuracy in enumerate([0.8, 0.72, 0.65], start=1)
    ]

    assert judged == [True, True, False]


def test_patience_does_not_wait_for_ever_where_accuracy_can_get_no_better():
    progress = Progress()

    for epoch, loss in enumerate([0.5, 0.4, 0.45, 0.41, 0.42], start=1):
        assert progress.judge(epoch, accuracy=1.0, error=0.0, loss=loss)

    assert (progress.best_epoch, progress.improved_epoch, progress.best_loss) == (5, 2, 0.4)
