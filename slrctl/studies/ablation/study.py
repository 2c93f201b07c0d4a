"""Studies: a baseline, named variants, and the one contrast declared beforehand."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

from slrctl.errors import DataError, UsageError
from slrctl.files import read_toml
from slrctl.layers import CMCL_PRESETS, Tree, flatten, read_overrides
from slrctl.settings import merge

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.+=-]{0,79}")


@dataclass(frozen=True)
class Study:
    """Variants by name, each the settings it changes; the first one is the baseline.

    `primary` is the variant of the contrast that is tested unadjusted; None if no contrast was
    declared.

    Raises:
        UsageError: a name cannot be shown or filed, or the primary is not among the variants.
    """

    name: str
    variants: Mapping[str, Tree]
    primary: str | None

    def __post_init__(self) -> None:
        for name in (self.name, *self.variants):
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise UsageError(
                    f"{name!r}: a name of a study or variant is 1 to 80 letters, digits, spaces "
                    "and any of _ . + = -, and begins with a letter or digit"
                )
        for name, tree in self.variants.items():
            if not isinstance(tree, Mapping):
                raise UsageError(f"variant {name!r}: expected a table of settings, found {tree!r}")
        if self.primary is not None and self.primary not in self.others:
            raise UsageError(
                f"primary {self.primary!r} is not one of the variants {', '.join(self.others)}"
            )

    @property
    def baseline(self) -> str:
        return next(iter(self.variants))

    @property
    def others(self) -> tuple[str, ...]:
        return tuple(self.variants)[1:]


def _cmcl(**changes: Any) -> Tree:
    return {"cmcl": {"preset": "balanced", **changes}}


_CE: Tree = {"cmcl": {"preset": "off"}}
_PUBLISHED: Tree = {**_CE, "recipe": "siformer"}

BUILT_IN: dict[str, Study] = {
    "cmcl": Study(
        "cmcl",
        {
            "CE": _CE,
            "consistency only": _cmcl(lambda_alignment=0.0),
            "alignment only": _cmcl(lambda_consistency=0.0),
            "full": _cmcl(),
            "conservative": {"cmcl": {"preset": "conservative"}},
            "aggressive": {"cmcl": {"preset": "aggressive"}},
            "adaptive": {"cmcl": {"preset": "adaptive"}},
            "no cross-attention": {**_CE, "model": {"cross_attention": False}},
        },
        primary="full",
    ),
    "cmcl-forms": Study(
        "cmcl-forms",
        {
            "CE": _CE,
            "kl": _cmcl(),
            "cycle": _cmcl(consistency="cycle"),
            "contrastive": _cmcl(alignment="contrastive"),
            "cycle + contrastive": _cmcl(consistency="cycle", alignment="contrastive"),
            "temporal": _cmcl(temporal=True),
            "multi-scale": _cmcl(multi_scale=True),
        },
        primary="cycle",
    ),
    "encoder": Study(
        "encoder",
        {
            "full attention": _PUBLISHED,
            "spoter": {**_PUBLISHED, "model": {"name": "spoter"}},
            "prob attention": {**_PUBLISHED, "model": {"attention": "prob"}},
            "first-frame attention": {**_PUBLISHED, "model": {"attention": "first_frame"}},
        },
        primary="spoter",
    ),
    "preparation": Study(
        "preparation",
        {
            "as is": {},
            "rectified": {"prepare": {"rectify": True}},
            "not mirrored": {"augment": {"mirror": 0.0}},
            "dominant hand right": {"prepare": {"dominant_hand": "right"}},
            "no augmentation": {"augment": {"enabled": False}},
            "rest kept": {"prepare": {"trim_rest": False}},
        },
        primary="not mirrored",
    ),
    "models": Study(
        "models",
        {
            "streamformer": _CE,
            "gru": {**_CE, "model": {"name": "gru"}},
            "conv": {**_CE, "model": {"name": "conv"}},
            "no cross-attention": {**_CE, "model": {"cross_attention": False}},
            "siformer": {**_CE, "model": {"name": "siformer"}},
            "siformer as published": _PUBLISHED,
        },
        primary="gru",
    ),
}


def built_in(name: str) -> Study:
    """Return the built-in study of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in BUILT_IN:
        raise UsageError(
            f"--study {name!r} is not one of {', '.join(BUILT_IN)}, nor a TOML file; "
            "name variants of your own with --variant"
        )
    return BUILT_IN[name]


def read_study(path: Path) -> Study:
    """Read a study from a file: `primary = "..."` and a table `[variants."name"]` for each variant.

    Raises:
        UsageError: the file cannot be read, or does not describe a study.
    """
    try:
        content = read_toml(path)
    except DataError as error:
        raise UsageError(f"--study {error}") from None
    if unknown := sorted(set(content) - {"name", "primary", "variants"}):
        raise UsageError(
            f"--study {path}: found {unknown[0]!r}, expected name, primary and [variants.NAME]"
        )
    variants = content.get("variants")
    if not isinstance(variants, dict) or len(variants) < 2:
        raise UsageError(
            f"--study {path}: needs a table [variants.NAME] for a baseline, which comes first, "
            "and for at least one variant"
        )
    return Study(content.get("name", path.stem), variants, content.get("primary"))


def with_variants(study: Study, assignments: Sequence[str]) -> Study:
    """Replace the variants of a study by ones written as `name:section.key=value,...`.

    The baseline stays, and the first of them is the primary contrast.

    Raises:
        UsageError: an assignment cannot be read.
    """
    if not assignments:
        return study
    variants = {study.baseline: study.variants[study.baseline]}
    for assignment in assignments:
        name, _, text = assignment.partition(":")
        name = name.strip()
        if not text.strip():
            raise UsageError(
                f"--variant {assignment!r}: expected NAME:section.key=value, separated by commas"
            )
        if name in variants:
            raise UsageError(f"--variant {assignment!r}: there is a variant {name!r} already")
        # Only at commas before another `section.key=`: a list may hold commas of its own.
        variants[name] = _tree(re.split(r",(?=\s*[A-Za-z_][\w.]*\s*=)", text))
    return replace(study, variants=variants, primary=tuple(variants)[1])


def with_grid(study: Study, grids: Sequence[str]) -> Study:
    """Replace the variants of a study by all combinations of listed values.

    A combination that sets what the baseline sets, such as both lambdas of CMCL to 0, is left out.

    Args:
        study: its baseline stays; no contrast is primary.
        grids: each `section.key=value,value,...`.

    Raises:
        UsageError: a grid cannot be read, or leaves nothing to compare.
    """
    if not grids:
        return study
    axes = grid_axes(grids)
    baseline = study.variants[study.baseline]
    variants = {study.baseline: baseline}
    for values in itertools.product(*axes.values()):
        cell = dict(zip(axes, values, strict=True))
        tree = _tree([f"{key}={value}" for key, value in cell.items()])
        if _effect(tree) != _effect(baseline):
            variants[cell_name(cell)] = tree
    if len(variants) == 1:
        raise UsageError(
            f"--grid {grids[0]!r}: sets only what the baseline {study.baseline!r} sets; "
            "give a value that differs"
        )
    return Study(f"{study.name}-grid", variants, None)


def grid_axes(grids: Sequence[str]) -> dict[str, list[str]]:
    """Return the values of each setting that `--grid` options name.

    Raises:
        UsageError: an option cannot be read, or names a setting that another one names.
    """
    axes: dict[str, list[str]] = {}
    for grid in grids:
        key, _, text = grid.partition("=")
        key = key.strip()
        outside_brackets = r",(?![^\[]*\])"
        values = [value.strip() for value in re.split(outside_brackets, text) if value.strip()]
        if not values:
            raise UsageError(f"--grid {grid!r}: expected section.key=value,value,...")
        if key in axes:
            raise UsageError(
                f"--grid {grid!r}: there is a --grid of {key} already; "
                f"give all values in one, --grid {key}={','.join([*axes[key], *values])}"
            )
        axes[key] = list(dict.fromkeys(values))
    return axes


def cell_name(cell: Mapping[str, str]) -> str:
    """Name the variant that gives each of these settings its value."""
    return " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in cell.items())


def decided(tree: Tree) -> dict[str, Any]:
    """Return the values a tree sets by dotted key, those of a preset it names among them."""
    values = flatten(tree)
    preset = CMCL_PRESETS.get(str(values.get("cmcl.preset")), {})
    return {f"cmcl.{name}": value for name, value in preset.items()} | values


def _effect(tree: Tree) -> dict[str, Any]:
    """Return the decided values without those that have no effect where CMCL is off."""
    values = decided(tree)
    if values.get("cmcl.lambda_consistency") == values.get("cmcl.lambda_alignment") == 0:
        return {k: v for k, v in values.items() if k not in ("cmcl.preset", "cmcl.adaptive")}
    return values


def _tree(assignments: Sequence[str]) -> dict[str, Any]:
    return reduce(merge, (layer.values for layer in read_overrides(assignments)), {})
