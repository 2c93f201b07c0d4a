"""What `slrctl train` shows before and after a training."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from slrctl.cli.console import print_facts, print_json, print_lines, print_table
from slrctl.layers import Resolved, cmcl_name, flatten

if TYPE_CHECKING:
    from slrctl.core.data.splits import Splits
    from slrctl.evaluation.bootstrap import Evaluation
    from slrctl.settings import CMCLSettings, Settings
    from slrctl.training.run import RunReport


def show_settings(console: Console, resolved: Resolved, *, as_json: bool) -> None:
    values = flatten(resolved.settings.model_dump(mode="json"))
    if as_json:
        print_json(
            {
                key: {"value": value, "origin": resolved.origins[key]}
                for key, value in values.items()
            }
        )
        return
    rows = [(key, _written(value), resolved.origins[key]) for key, value in values.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    print_lines(
        console,
        [f"{key:<{widths[0]}}  {value:<{widths[1]}}  {origin}" for key, value, origin in rows],
    )


def _written(value: object) -> str:
    if value is None:
        return "-"
    return str(value).lower() if isinstance(value, bool) else str(value)


def show_header(console: Console, settings: "Settings", splits: "Splits") -> None:
    from slrctl.core.devices import choose_device, choose_precision, describe_device
    from slrctl.core.model import num_parameters

    device = choose_device(settings.train.device)
    precision = choose_precision(settings.train.precision, device)
    num_weights = num_parameters(settings.model, len(splits.train.classes))
    counts = ", ".join(f"{len(split)} {name}" for name, split in splits.by_name.items())
    print_facts(
        console,
        {
            "data": f"{splits.train.name}: {counts} clips, {len(splits.train.classes)} glosses, "
            f"{_signers(splits)}",
            "hands": _missing_hands(splits),
            "model": f"{settings.model.name}, {num_weights:,} parameters, "
            f"{settings.model.attention} attention, {_describe_streams(settings)}",
            "loss": _describe_loss(settings),
            "run": f"{_describe_epochs(settings)}, batch {settings.train.batch_size}, "
            f"learning rate {settings.train.learning_rate:g}, recipe {settings.recipe}, "
            f"seed {settings.seed}, {precision} on {device} "
            f"({describe_device(device)})",
        },
    )
    print_lines(console, splits.notes)


def _describe_epochs(settings: "Settings") -> str:
    epochs, patience = settings.train.epochs, settings.train.patience
    return f"{epochs} epochs" + (f" or {patience} without a better one" if patience else "")


def _describe_streams(settings: "Settings") -> str:
    if settings.model.name == "spoter":
        return "one stream"
    return f"cross-attention {'on' if settings.model.cross_attention else 'off'}"


def _signers(splits: "Splits") -> str:
    signers = {clip.signer for split in splits.by_name.values() for clip in split}
    known = signers - {None}
    return f"{len(known)} signers" if known else "signers not stated"


def _missing_hands(splits: "Splits") -> str:
    from slrctl.core.data.splits import missing_hand_share

    left, right = missing_hand_share(splits.train)
    return f"left missing in {100 * left:.0f} %, right in {100 * right:.0f} % of training frames"


def _describe_loss(settings: "Settings") -> str:
    cmcl = settings.cmcl
    if not cmcl.is_on:
        return "cross-entropy (CMCL off)"
    return (
        f"cross-entropy + {cmcl.lambda_consistency:g} consistency ({_consistency_form(cmcl)}) "
        f"+ {cmcl.lambda_alignment:g} alignment{_alignment_form(cmcl)}, "
        f"{'adaptive' if cmcl.adaptive else 'fixed'} lambdas (CMCL {cmcl_name(settings)})"
    )


def _consistency_form(cmcl: "CMCLSettings") -> str:
    form = cmcl.divergence if cmcl.consistency == "kl" else "cycle"
    temporal = " + temporal" if cmcl.temporal else ""
    is_softened = cmcl.consistency == "kl" or cmcl.temporal
    return f"{form}{temporal}" + (f", temperature {cmcl.temperature:g}" if is_softened else "")


def _alignment_form(cmcl: "CMCLSettings") -> str:
    differs = [cmcl.alignment] if cmcl.alignment != "cosine" else []
    differs += ["every layer"] if cmcl.multi_scale else []
    return f" ({', '.join(differs)})" if differs else ""


def show_results(console: Console, finished: "RunReport", run_dir: Path) -> None:
    evaluations = [("validation", finished.validation), ("test", finished.test)]
    columns = [(name, evaluation) for name, evaluation in evaluations if evaluation is not None]
    headings = ["", *(heading for name, _ in columns for heading in (name, "95 % interval"))]
    print_table(
        console,
        f"best epoch {finished.summary['best_epoch']} of {finished.summary['epochs']}",
        headings,
        list(_result_rows([evaluation for _, evaluation in columns])),
    )
    print_lines(
        console,
        [
            *(f"{name}: {e.note}" for name, e in columns if e.note),
            f"saved in {run_dir}; next:",
            f"  slrctl evaluate {run_dir}",
            f"  slrctl evaluate {run_dir} --data OTHER_CLIPS",
        ],
    )


def _result_rows(evaluations: "Sequence[Evaluation]") -> Iterator[list[str]]:
    from slrctl.reports.tables import overall_rows

    for rows in zip(*(overall_rows(evaluation) for evaluation in evaluations), strict=True):
        yield [rows[0].metric, *(cell for row in rows for cell in (row.value, row.interval))]
