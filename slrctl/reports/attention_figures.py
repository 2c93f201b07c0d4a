"""Figures about attention, ready for a paper: of one clip, and over a data set.

Sizes are those of a two-column page, text is 6 to 8 points, and lines and text are vectors in SVG
and PDF. Frames count from 1.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator, PercentFormatter

from slrctl.reports.figures import (
    BLUE,
    COLORS,
    CURVES,
    Style,
    drawn_text,
    gloss_labels,
    saved_figure,
)
from slrctl.reports.skeletons import (
    LEFT_HAND,
    RIGHT_HAND,
    DrawnStream,
    draw_bones,
    frame_axes,
    window_of,
)
from slrctl.settings import CMCLSettings
from slrctl.studies.attention.faithfulness import FRACTIONS, HANDS, RANDOM, Faithfulness
from slrctl.studies.attention.measures import (
    CLEAR,
    MeasuredClip,
    compared_distributions,
    relative_entropy,
)
from slrctl.studies.attention.record import AttentionMap, InspectedClip
from slrctl.studies.attention.summary import GlossSummary

STREAM_NAMES = {
    "left_hand": "left hand",
    "right_hand": "right hand",
    "body": "body",
    "clip": "all streams",
    "class_query": "class query",
}
DIVERGENCES = {"kl": "KL", "symmetric": "symmetric KL", "js": "JS"}
PAGE_WIDTH = 7.2  # inches
STYLE: Style = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.labelpad": 2,
    "axes.linewidth": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "figure.titlesize": 8,
    "legend.fontsize": 7,
    "savefig.dpi": 300,
    "savefig.pad_inches": 0.04,
    "pdf.fonttype": 42,  # letters stay letters
    "svg.fonttype": "none",
}
HEAT, MISSING = "viridis", "0.75"
DIFFERENCE = "PuOr_r"  # orange where the first map is stronger; safe for the colour-blind
NEARLY_UNIFORM = 2.0
"""The scale does not start at 0 but is stretched where no weight is this many times uniform."""

Picture = Float[np.ndarray, "Q T"]


def scale_for(pictures: Sequence[Picture]) -> Normalize:
    """Scale from 0 to the largest value shown; stretched where all values are near 1.

    Attention that is nearly uniform would be one flat colour from 0 on, and a stretched scale says
    by its numbers how small the differences are.
    """
    shown = np.concatenate([p[np.isfinite(p)].ravel() for p in pictures])
    low, high = (shown.min(), shown.max()) if len(shown) else (0.0, NEARLY_UNIFORM)
    if high >= NEARLY_UNIFORM:
        return Normalize(0.0, float(high), clip=True)
    # A map that is uniform to the last bit has no range of its own.
    return Normalize(float(min(low, 0.99)), float(max(high, 1.01)), clip=True)


def unit(scale: Normalize) -> str:
    """Label the colours of a map."""
    return "times uniform attention" + ("\n(stretched)" if scale.vmin else "")


def relative(found: AttentionMap, weights: Picture) -> Picture:
    """Divide weights by those of uniform attention; NaN where the reader or the read is missing."""
    shown = weights.astype(np.float64) * max(int(found.keys_count.sum()), 1)
    return np.where(found.rows_count[:, None] & found.keys_count, shown, np.nan)


def reading(found: AttentionMap) -> str:
    """Say which stream reads which."""
    if found.reader == found.read:
        return f"{STREAM_NAMES[found.reader]} reads itself"
    return f"{STREAM_NAMES[found.reader]} reads {STREAM_NAMES[found.read]}"


def draw_map(
    axes: Axes, picture: Picture, scale: Normalize, found: AttentionMap, *, palette: str = HEAT
) -> AxesImage:
    """Draw one map: the reader's frames down, those it reads across; missing ones grey."""
    num_rows, num_frames = picture.shape
    image = axes.imshow(
        picture,
        cmap=colormaps[palette].with_extremes(bad=MISSING),
        norm=scale,
        interpolation="none",
        aspect="auto" if num_rows == 1 else "equal",
        extent=(0.5, num_frames + 0.5, num_rows + 0.5, 0.5),
    )
    axes.set_xlabel(f"{STREAM_NAMES[found.read]} (frame)")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    if num_rows == 1:
        axes.set_yticks([])
    else:
        axes.set_ylabel(f"{STREAM_NAMES[found.reader]} (frame)")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    return image


def _entropy(found: AttentionMap) -> str:
    entropy = float(relative_entropy(found).mean())
    return "entropy " + ("-" if math.isnan(entropy) else f"{entropy:.3f} of uniform")


def _name_clip(figure: Figure, inspected: InspectedClip, subject: str) -> None:
    """Say above a figure which clip it shows and what the model predicts."""
    clip_id, gloss, predicted = (
        drawn_text(text, longest=48)
        for text in (inspected.clip.clip_id, inspected.clip.gloss, inspected.predicted)
    )
    verdict = "" if inspected.is_right else f", the sign is {gloss}"
    figure.suptitle(
        f"{clip_id} ({subject})\npredicted {predicted}, {100 * inspected.confidence:.1f} %{verdict}"
    )


def _add_bar(figure: Figure, grid: np.ndarray, scale: Normalize) -> None:
    """Put one colour bar beside all axes."""
    image = grid[0, 0].images[0]
    figure.colorbar(image, ax=grid, fraction=0.03, pad=0.015, aspect=30).set_label(unit(scale))


def draw_maps(inspected: InspectedClip, layer: str, *paths: Path) -> None:
    """Draw all maps of a layer, the heads averaged, on one scale."""
    maps = inspected.layers[layer]
    pictures = [relative(found, found.mean) for found in maps]
    scale = scale_for(pictures)
    num_columns = min(len(maps), 3)
    num_rows = math.ceil(len(maps) / num_columns)
    is_single = maps[0].weights.shape[1] == 1
    height = 1.8 if is_single else 0.45 + 2.3 * num_rows * 3 / max(num_columns, 2)
    with saved_figure((PAGE_WIDTH, height), *paths, layout="compressed", style=STYLE) as figure:
        grid = figure.subplots(num_rows, num_columns, squeeze=False)
        for axes, found, picture in zip(grid.flat, maps, pictures, strict=True):
            draw_map(axes, picture, scale, found)
            axes.set_title(f"{reading(found)}\n{_entropy(found)}")
        _name_clip(figure, inspected, f"{layer}, mean of {len(maps[0].weights)} heads")
        _add_bar(figure, grid, scale)


def draw_heads(inspected: InspectedClip, layer: str, *paths: Path) -> None:
    """Draw every head of every map of a layer, a row a head."""
    maps = inspected.layers[layer]
    pictures = [[relative(found, head) for head in found.weights] for found in maps]
    scale = scale_for([picture for heads in pictures for picture in heads])
    num_heads = max(map(len, pictures))
    is_single = maps[0].weights.shape[1] == 1
    side = 0.32 if is_single else (PAGE_WIDTH - 0.9) / max(len(maps), 3) + 0.12
    size = (PAGE_WIDTH, 0.9 + side * num_heads)
    with saved_figure(size, *paths, layout="compressed", style=STYLE) as figure:
        grid = figure.subplots(num_heads, len(maps), squeeze=False)
        for axes in grid.flat:
            axes.set_visible(False)  # the body's encoder has fewer heads than the hands'
        for column, (found, heads) in enumerate(zip(maps, pictures, strict=True)):
            entropy = relative_entropy(found)
            for head, (axes, picture) in enumerate(zip(grid[:, column], heads, strict=False)):
                is_last = head + 1 == len(heads)
                axes.set_visible(True)
                draw_map(axes, picture, scale, found)
                axes.set_xlabel(axes.get_xlabel() if is_last else "", fontsize=6.5)
                axes.set_ylabel("")
                axes.tick_params(labelsize=6, labelbottom=is_last)
                if not math.isnan(entropy[head]):
                    axes.text(
                        *(0.97, 0.03, f"H {entropy[head]:.3f}"),
                        transform=axes.transAxes,
                        ha="right",
                        va="bottom",
                        fontsize=5.5,
                        bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1},
                    )
            grid[0, column].set_title(reading(found).replace(" reads ", "\nreads "), fontsize=7)
        for head, axes in enumerate(grid[:, 0], start=1):
            turned = {"rotation": 0, "ha": "right", "va": "center"} if is_single else {}
            axes.set_ylabel(f"head {head}", fontsize=7, labelpad=4, **turned)
        _name_clip(figure, inspected, f"{layer}, every head; H: entropy relative to uniform")
        _add_bar(figure, grid, scale)


def draw_comparison(inspected: Sequence[InspectedClip], names: Sequence[str], *paths: Path) -> None:
    """Draw both maps between the hands for each of several runs, a row a run, on one scale."""
    maps = [[one.fusion[name] for name in ("left_to_right", "right_to_left")] for one in inspected]
    pictures = [[relative(found, found.mean) for found in row] for row in maps]
    scale = scale_for([picture for row in pictures for picture in row])
    size = (0.8 * PAGE_WIDTH, 0.4 + 2.6 * len(maps))
    with saved_figure(size, *paths, layout="compressed", style=STYLE) as figure:
        grid = figure.subplots(len(maps), 2, squeeze=False)
        for row, (one, name) in enumerate(zip(inspected, names, strict=True)):
            title = f"{drawn_text(name)} ({100 * one.confidence:.1f} %)"
            for axes, found, picture in zip(grid[row], maps[row], pictures[row], strict=True):
                draw_map(axes, picture, scale, found)
                axes.set_title(f"{title}: {reading(found)}\n{_entropy(found)}", fontsize=7)
        _add_bar(figure, grid, scale)


NUM_SHOWN = 4
"""Hands beside the first map of the consistency panel."""


def draw_consistency(measured: MeasuredClip, cmcl: CMCLSettings, *paths: Path) -> None:
    """Draw what CMCL compares: left to right, right to left reversed, and their difference.

    The first row has the heads averaged, as in the loss, and beside it the frames of each hand that
    the other attends to most; the others show one head each. All panels have the left hand's frames
    down and the right hand's across, rows that sum to 1, and the temperature of the loss.
    """
    inspected, measures = measured
    found, reverse = (inspected.fusion[name] for name in ("left_to_right", "right_to_left"))
    rows = [("heads averaged", found.mean, reverse.mean, measures.divergence)]
    for head, divergence in enumerate(measures.head_divergence):
        rows.append((f"head {head + 1}", found.weights[head], reverse.weights[head], divergence))
    size = (PAGE_WIDTH, 1.2 + 2.25 * len(rows))
    with saved_figure(size, *paths, layout="compressed", style=STYLE) as figure:
        grid = figure.subplots(len(rows), 3, squeeze=False)
        for panels, (title, own, other, divergence) in zip(grid, rows, strict=True):
            pair = compared_distributions(own, other, found.keys_count, cmcl.temperature)
            pictures = [relative(found, weights) for weights in pair]
            _draw_pair(figure, panels, pictures, found)
            number = "-" if math.isnan(divergence) else f"{divergence:.3g} nats"
            panels[0].set_title(f"{title}: left reads right")
            panels[1].set_title("right reads left, reversed")
            panels[2].set_title(f"difference, {DIVERGENCES[cmcl.divergence]} {number}")
        _draw_hands(grid[0, 0], inspected, reverse, LEFT_HAND)
        _draw_hands(grid[0, 0], inspected, found, RIGHT_HAND)
        softened = "" if cmcl.temperature == 1 else f", temperature {cmcl.temperature:g}"
        _name_clip(figure, inspected, f"consistency of the hands{softened}")


def _draw_pair(
    figure: Figure, panels: Sequence[Axes], pictures: Sequence[Picture], found: AttentionMap
) -> None:
    """Draw two distributions on one scale, and the first minus the second."""
    scale = scale_for(pictures)
    difference = pictures[0] - pictures[1]
    reach = float(np.nanmax(np.abs(difference), initial=0.0)) or 1.0
    around_zero = Normalize(-reach, reach)
    draw_map(panels[0], pictures[0], scale, found)
    image = draw_map(panels[1], pictures[1], scale, found)
    figure.colorbar(image, ax=panels[:2], pad=0.02, aspect=25).set_label(unit(scale), fontsize=6.5)
    image = draw_map(panels[2], difference, around_zero, found, palette=DIFFERENCE)
    bar = figure.colorbar(image, ax=panels[2], pad=0.03, aspect=25)
    bar.set_label("first minus second", fontsize=6.5)
    for axes in panels[1:]:  # the first one's label is for all three
        axes.set_ylabel("")


def most_attended(found: AttentionMap, count: int = NUM_SHOWN) -> list[int]:
    """Choose the frames read most, the mean over the reader's frames, in order of time.

    Frames next to a chosen one look like it, so those within a tenth of the clip are passed over.
    """
    received = np.where(found.keys_count, found.mean[found.rows_count].sum(axis=0), -np.inf)
    apart = max(1, len(received) // 10)
    chosen: list[int] = []
    for frame in np.argsort(-received, kind="stable").tolist():
        if np.isfinite(received[frame]) and all(abs(frame - other) >= apart for other in chosen):
            chosen.append(frame)
        if len(chosen) == count:
            break
    return sorted(chosen)


def _draw_hands(
    axes: Axes, inspected: InspectedClip, found: AttentionMap, hand: DrawnStream
) -> None:
    """Draw the frames of a hand that a map reads most along its axis: down for the left hand."""
    clip, frames = inspected.clip, most_attended(found)
    is_down, side, gap = hand is LEFT_HAND, 0.9 / NUM_SHOWN, 0.12  # in sides of the map
    for number, frame in enumerate(frames):
        place, on_axis = (number + 0.5) / len(frames), (frame + 0.5) / clip.num_frames
        x, y = (-gap, 1 - place) if is_down else (place, -gap)
        ends = ([x, 0], [y, 1 - on_axis]) if is_down else ([x, on_axis], [y, 0])
        axes.plot(*ends, transform=axes.transAxes, clip_on=False, color="0.45", linewidth=0.5)
        left, bottom = (x - side, y - side / 2) if is_down else (x - side / 2, y - side)
        panel = axes.inset_axes((left, bottom, side, side))
        landmarks = np.full_like(clip.landmarks[frame], np.nan)
        landmarks[hand.landmarks] = clip.landmarks[frame, hand.landmarks]
        draw_bones(panel, landmarks * [clip.aspect, 1.0], hand, 0.7)
        frame_axes(panel, window_of(landmarks[None], clip.aspect))
        if is_down:
            panel.set_ylabel(str(frame + 1), rotation=0, ha="right", va="center", fontsize=5.5)
        else:
            panel.set_xlabel(str(frame + 1), fontsize=5.5)
    axis = axes.yaxis if is_down else axes.xaxis
    axis.set_ticks([frame + 1 for frame in frames], [""] * len(frames))
    axis.set_label_coords(*((-0.5, 0.5) if is_down else (0.5, -0.48)))


MAX_GLOSSES = 24
"""Glosses in a figure, those with most clips; the npz has all."""
_DASHES = ("-", "--", "-.", (0, (3, 1, 1, 1)), (0, (5, 1)))
_CONTROLS = {RANDOM: ("black", ":"), HANDS: ("0.5", ":")}


def _most_frequent(glosses: Sequence[GlossSummary]) -> list[GlossSummary]:
    """Choose the glosses with most clips, in their order."""
    kept = sorted(glosses, key=lambda one: -one.clips)[:MAX_GLOSSES]
    return [one for one in glosses if one in kept]


def draw_mean_maps(glosses: Sequence[GlossSummary], *paths: Path) -> None:
    """Draw each gloss's mean maps, left to right and right to left, and how sure they are.

    A black dot marks cells whose 95 % interval leaves out uniform attention. Each gloss has a map.
    """
    shown = _most_frequent(glosses)
    across = min(4, len(shown))
    down = math.ceil(len(shown) / across)
    scale = scale_for([one.mean for one in shown])
    size = (PAGE_WIDTH, 0.7 + 1.15 * down)
    with saved_figure(size, *paths, layout="compressed", style=STYLE) as figure:
        grid = figure.subplots(down, 2 * across, squeeze=False)
        for axes in grid.flat:
            axes.set(xticks=[], yticks=[], facecolor="0.8", visible=False)
        labels = gloss_labels([one.gloss for one in shown])
        for one, label, pair in zip(shown, labels, grid.reshape(-1, 2), strict=False):
            pair[0].set_title(f"{label} ({one.clips})", fontsize=6, loc="left")
            for map_number, direction in enumerate(("L reads R", "R reads L")):
                axes = pair[map_number]
                axes.set_visible(True)
                axes.imshow(one.mean[map_number], cmap=HEAT, norm=scale)
                is_sure = (one.low[map_number] > 1) | (one.high[map_number] < 1)
                rows, columns = np.nonzero(is_sure)
                axes.plot(columns, rows, "s", color="black", markersize=0.6, markeredgewidth=0)
                axes.set_xlabel(direction, fontsize=5.5, labelpad=1)
        bar = figure.colorbar(grid[0, 0].images[0], ax=grid, fraction=0.02, pad=0.01)
        bar.set_label(unit(scale), fontsize=7)
        figure.suptitle(
            "mean attention between the hands, start of the clip to its end (reader down)\n"
            "black dots: the 95 % interval leaves out uniform attention"
        )


def draw_lags(glosses: Sequence[GlossSummary], *paths: Path) -> None:
    """Draw the lags read off the maps of each gloss's clips, as large as many have them."""
    shown = _most_frequent(glosses)
    size = (PAGE_WIDTH, 0.8 + 0.22 * max(len(shown), 2))
    with saved_figure(size, *paths, style=STYLE) as figure:
        axes = figure.subplots()
        for row, one in enumerate(shown):
            lags, is_clear = np.array(one.lags), np.array(one.strengths) >= CLEAR
            for chosen, face in ((lags[~is_clear], "none"), (lags[is_clear], BLUE)):
                places, counts = np.unique(chosen, return_counts=True)
                areas, rows = 3 + 80 * counts / len(lags), np.full(len(places), row)
                axes.scatter(places, rows, areas, facecolor=face, edgecolor=BLUE, linewidth=0.6)
            axes.plot(np.median(lags), row, "|", color="black", markersize=9, markeredgewidth=1.2)
        axes.axvline(0, color="0.6", linewidth=0.7, zorder=0)
        axes.set_yticks(range(len(shown)), gloss_labels([one.gloss for one in shown]), fontsize=6)
        axes.invert_yaxis()
        axes.set_xlabel("lag of the right hand behind the left, read off the maps (frames)")
        axes.set_title(
            "area: share of the gloss's clips; bar: median; "
            f"hollow: noise, the diagonal gets under {CLEAR:g} times uniform"
        )


def draw_faithfulness(found: Faithfulness, *paths: Path) -> None:
    """Draw the mean deletion and insertion curve of every order."""
    lines: Style = {"lines.marker": "o", "lines.markersize": 2.5, "lines.linewidth": 1.3}
    with saved_figure((PAGE_WIDTH, 2.9), *paths, style=CURVES | STYLE | lines) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, kind, change in zip(
            panels, ("deletion", "insertion"), ("removed", "put in"), strict=True
        ):
            looks = zip(COLORS, _DASHES, strict=False)
            for name, curves in found.curves.items():
                color, dashes = _CONTROLS.get(name) or next(looks)
                mean = getattr(curves, kind).mean(axis=0)
                axes.plot(FRACTIONS, mean, color=color, linestyle=dashes, label=name)
            axes.set_title(kind)
            axes.set_xlabel(f"frames {change}, in the order named (%)")
            axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=""))
        panels[0].set_ylabel("probability of the prediction")
        panels[0].set_ylim(bottom=0)
        panels[1].legend()
        figure.suptitle(f"mean of {len(found.clip_ids)} clips")
