"""The panels of the training curves: which columns of the history they show, and how.

A new curve is one more line in this table.
"""

from typing import NamedTuple

# Okabe and Ito's colours, which the colour-blind can tell apart.
BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"


class Curve(NamedTuple):
    """A column of the history, and how it is drawn; without a label it is not in the legend."""

    key: str
    label: str
    color: str
    style: str


class Panel(NamedTuple):
    title: str
    axis_label: str
    curves: tuple[Curve, ...]
    lowest: float | None = None
    """Where the axis starts, None for wherever the data do."""


PANELS = (
    Panel(
        "accuracy",
        "accuracy (%)",
        (
            Curve("train_accuracy", "training", BLUE, "--"),
            Curve("val_accuracy", "validation", VERMILLION, "-"),
        ),
        lowest=0.0,
    ),
    Panel(
        "loss",
        "cross-entropy (nats)",
        (
            Curve("train_classification", "training", BLUE, "--"),
            Curve("val_loss", "validation", VERMILLION, "-"),
            Curve("train_loss", "training, with CMCL", GREEN, ":"),
        ),
    ),
    Panel("learning rate", "learning rate", (Curve("learning_rate", "", BLUE, "-"),), lowest=0.0),
    Panel(
        "CMCL: consistency",
        "consistency term (nats)",
        (Curve("train_consistency", "", GREEN, "-"),),
    ),
    Panel("CMCL: alignment", "alignment term", (Curve("train_alignment", "", GREEN, "-"),)),
    Panel(
        "CMCL: weights in force",
        "weight of the term",
        (
            Curve("lambda_consistency", "consistency", BLUE, "-"),
            Curve("lambda_alignment", "alignment", VERMILLION, "--"),
        ),
        lowest=0.0,
    ),
)
