"""Charts as self-contained SVG, in one look. Text stays text, drawn in the reader's own sans-serif."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

INK, MUTED, GRID = "#1f2933", "#7b8794", "#e4e7eb"
CALM, GOOD, BAD = "#3e6fb0", "#2f9e6e", "#d64545"


def style() -> Any:
    """A context in which figures are made and saved."""
    return rc_context(
        {
            "svg.fonttype": "none",
            "font.family": "sans-serif",
            "font.size": 10,
            "text.color": INK,
            "axes.labelcolor": MUTED,
            "axes.edgecolor": GRID,
            "axes.titlesize": 11,
            "axes.titlelocation": "left",
            "axes.titlepad": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": GRID,
            "xtick.color": MUTED,
            "ytick.color": MUTED,
            "legend.frameon": False,
        }
    )


def svg(figure: Figure) -> str:
    """The figure as an `<svg>` element that loads nothing. Call it inside `style()`."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = out.getvalue()
    return text[text.index("<svg") :].replace("DejaVu Sans", "system-ui")


def plain(axis: Any) -> None:
    """Numbers on `axis` written out (1,000) and not as powers."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def bars(
    groups: Mapping[str, Mapping[str, float]], *, title: str, highlight: str, marks: Sequence[float], about: str
) -> str:
    """Horizontal bars side by side, one chart per group, logarithmic.

    `highlight` names the bar in colour, `marks` has the value to reach in each group.
    """
    with style():
        rows = max(len(group) for group in groups.values())
        figure = Figure(figsize=(10, 1.6 + 0.42 * rows), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
        figure.supxlabel(about, x=0.01, ha="left", fontsize=7, color=MUTED)
        axes: Sequence[Axes] = figure.subplots(1, len(groups), squeeze=False)[0]
        for chart, (name, group), mark in zip(axes, groups.items(), marks, strict=True):
            names = [label for label, value in group.items() if value == value][::-1]
            values = [group[label] for label in names]
            drawn = chart.barh(names, values, color=[CALM if label == highlight else "#b8c4d4" for label in names])
            chart.bar_label(drawn, [f"{value:,.0f}" for value in values], padding=4)
            chart.axvline(mark, color=GOOD, linestyle="--", linewidth=1)
            chart.annotate(
                f"to reach: {mark:,.0f}", (mark, 1), (4, -2), ("data", "axes fraction"), "offset points",
                color=GOOD, fontsize=8,
            )  # fmt: skip
            chart.set(xscale="log", title=name)
            chart.margins(x=0.2)
            chart.grid(visible=False, axis="y")
            plain(chart.xaxis)
        return svg(figure)


def shares(rows: Mapping[str, tuple[float, float, float]], *, title: str, mark: float, about: str) -> str:
    """A dot for each share (0 to 1) with its interval: value, low and high; and a dashed line to reach."""
    with style():
        figure = Figure(figsize=(8, 1.4 + 0.3 * len(rows)), layout="constrained")
        figure.supxlabel(about, x=0.01, ha="left", fontsize=7, color=MUTED)
        chart = figure.subplots()
        upwards = list(rows.items())[::-1]
        for place, (_, (value, low, high)) in enumerate(upwards):
            chart.plot([100 * low, 100 * high], [place, place], color=CALM, linewidth=2)
            chart.plot([100 * value], [place], "o", color=CALM)
        chart.axvline(100 * mark, color=GOOD, linestyle="--", linewidth=1)
        chart.set_yticks(range(len(upwards)), [name for name, _ in upwards])
        chart.set(title=title, xlabel=f"percent, 95 % interval; to reach: {100 * mark:.0f}")
        chart.grid(visible=False, axis="y")
        return svg(figure)


def line(points: Sequence[tuple[float, float]], *, title: str, x: str, y: str, limit: float) -> str:
    """A line through (x, y) points, with a dashed line at the `limit`."""
    with style():
        figure = Figure(figsize=(8, 3), layout="constrained")
        chart = figure.subplots()
        chart.plot(*zip(*points, strict=True), color=CALM, linewidth=2)
        chart.axhline(limit, color=BAD, linestyle="--", linewidth=1)
        chart.set(title=title, xlabel=x, ylabel=y, ylim=(0, limit * 1.15))
        return svg(figure)


def histogram(values: Sequence[float], *, title: str, x: str, limit: float | None = None, steep: bool = False) -> str:
    """How `values` are spread, with their median and 99th percentile, and the `limit` where there is one.

    `steep` counts on a logarithmic scale, for values of which few lie far out.
    """
    with style():
        figure = Figure(figsize=(6.4, 3.2), layout="constrained")
        chart = figure.subplots()
        ranked = sorted(values)
        if ranked:
            most = ranked[-1] * 1.08
            if limit is not None and limit < 2 * most:
                most = max(most, limit * 1.1)
            counts, *_ = chart.hist(ranked, bins=40, range=(0, most), color=CALM)
            top = float(max(counts))
            chart.set(xlim=(0, most), yscale="log" if steep else "linear")
            chart.set_ylim(0.7 if steep else 0, 12 * top if steep else 1.35 * top)  # room for what the lines say
            for share, label, color in ((0.5, "p50", INK), (0.99, "p99", MUTED)):
                value = ranked[min(len(ranked) - 1, int(share * len(ranked)))]
                chart.axvline(value, color=color, linewidth=1)
                _flag(chart, value, f"{label} {value:,.0f}", color, 0.99 if share < 0.9 else 0.91)
            if limit is not None and limit <= most:
                chart.axvline(limit, color=GOOD, linestyle="--", linewidth=1.5)
                _flag(chart, limit, f"objective {limit:,.0f}", GOOD, 0.83)
            elif limit is not None:
                chart.text(
                    0.99, 0.83, f"objective {limit:,.0f} \u2192", color=GOOD, ha="right", va="top", fontsize=9,
                    transform=chart.transAxes,
                )  # fmt: skip
        plain(chart.xaxis)
        plain(chart.yaxis)
        chart.grid(visible=False, axis="x")
        chart.set(title=title, xlabel=x)
        return svg(figure)


def _flag(chart: Axes, at: float, text: str, color: str, height: float) -> None:
    left, right = chart.get_xlim()
    inside = at < left + 0.75 * (right - left)
    chart.annotate(
        text, (at, height), (4 if inside else -4, 0), ("data", "axes fraction"), "offset points",
        color=color, fontsize=9, ha="left" if inside else "right", va="top",
    )  # fmt: skip


def area(points: Sequence[tuple[float, float]], *, title: str, x: str, y: str) -> str:
    """A filled line through (x, y) points."""
    with style():
        figure = Figure(figsize=(6.4, 3.2), layout="constrained")
        chart = figure.subplots()
        if points:
            places, values = zip(*points, strict=True)
            chart.fill_between(places, values, color=CALM, alpha=0.18, linewidth=0)
            chart.plot(places, values, color=CALM, linewidth=1.8)
            chart.set(xlim=(0, max(places)), ylim=(0, max(values) * 1.15 or 1))
        chart.set(title=title, xlabel=x, ylabel=y)
        plain(chart.yaxis)
        return svg(figure)


def scatter(
    groups: Mapping[str, tuple[str, Sequence[tuple[float, float]]]], *, title: str, x: str, y: str, limit: float
) -> str:
    """Dots at (x, y) in groups, each with its colour, and a dashed line at the `limit` where it is near."""
    with style():
        figure = Figure(figsize=(6.4, 3.2), layout="constrained")
        chart = figure.subplots()
        highest = 0.0
        for name, (color, points) in groups.items():
            if points:
                places, values = zip(*points, strict=True)
                chart.scatter(
                    places, values, s=22, color=color, alpha=0.75, linewidths=0, label=f"{name} ({len(points)})"
                )
                highest = max(highest, *values)
        if highest:
            chart.legend(loc="lower left", bbox_to_anchor=(0.55, 1.0), ncols=2, fontsize=9, handletextpad=0.2)
        if highest > limit / 2:
            chart.axhline(limit, color=GOOD, linestyle="--", linewidth=1.5)
            highest = max(highest, limit)
        chart.set(title=title, xlabel=x, ylabel=y, ylim=(0, highest * 1.1 or 1))
        plain(chart.yaxis)
        return svg(figure)
