"""Figures as inline SVG. Facts in, markup out: nothing here reads a store.

Colours are CSS variables of the page, so a figure follows light and dark mode. Text stays text, in the page's font.
"""

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from headrace.console.markup import Html, element
from headrace.records import Interval

# matplotlib knows no CSS variables: it draws with these stand-ins, which `_svg` replaces.
_INK, _LINE = "#010203", "#040506"
_SERIES = ["#0a0b0c", "#0d0e0f", "#101112", "#131415"]
_VARIABLES = {
    _INK: "currentColor",
    _LINE: "var(--line)",
    **{color: f"var(--series-{i + 1})" for i, color in enumerate(_SERIES)},
}
_STYLE: Any = {  # its type would list every setting there is
    "svg.fonttype": "none",
    "text.parse_math": False,  # a label may hold dollar signs
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.8,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "legend.frameon": False,
}
_WIDTH_IN = 5.4
_MOST_CHARS = 24


def learning_curve(history: Sequence[Mapping[str, Any]], metric: str, metric_label: str, *, name: str) -> Html:
    """Loss on training rows and on validation rows by step, and the main metric below it, where the run kept them."""
    train = _points(history, "loss")
    validation = _points(history, "eval_loss")
    scores = _points(history, f"eval_{metric}")
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(2 if scores else 1, height_in=4.6 if scores else 2.8)
        for points, label, color in ((train, "training", _SERIES[2]), (validation, "validation", _SERIES[0])):
            if points:
                axes[0].plot(*zip(*points, strict=True), color=color, label=label, marker="o", markersize=3)
        axes[0].set_ylabel("loss")
        axes[0].grid(axis="y")
        if train or validation:
            axes[0].legend(loc="upper right")
        if scores:
            axes[1].plot(*zip(*scores, strict=True), color=_SERIES[0], marker="o", markersize=3)
            axes[1].set_ylabel(_short(metric_label))
            axes[1].grid(axis="y")
        axes[-1].set_xlabel("step")
        return _svg(figure, name, "Learning curve: loss by training step")


def bars(groups: Mapping[str, Mapping[str, Interval]], *, metric: str, name: str) -> Html:
    """A bar per predictor in every group (all rows, then each channel), with its interval."""
    series = list(dict.fromkeys(label for members in groups.values() for label in members))
    thick = 0.8 / max(len(series), 1)
    with mpl.rc_context(_STYLE):
        figure, (axes,) = _figure(1, height_in=1.1 + len(groups) * (0.3 + 0.17 * len(series)))
        for i, label in enumerate(series):
            places = [g + (i - (len(series) - 1) / 2) * thick for g, m in enumerate(groups.values()) if label in m]
            found = [members[label] for members in groups.values() if label in members]
            _bars(axes, places, found, thick, _SERIES[i % len(_SERIES)], label)
        axes.set_yticks(range(len(groups)), [_short(group) for group in groups])
        axes.set_ylim(len(groups) - 0.45, -0.55)
        low = min((interval.low for members in groups.values() for interval in members.values()), default=0)
        axes.set_xlim(min(0, low), 1)
        axes.grid(axis="x")
        axes.set_xlabel(_short(metric))
        _legend_above(axes, 2)
        return _svg(figure, name, f"{metric} per channel for {', '.join(series)}")


def _bars(axes: Axes, places: list[float], found: list[Interval], thick: float, color: str, label: str) -> None:
    values = [interval.estimate for interval in found]
    axes.barh(places, values, height=thick * 0.88, color=color, alpha=0.75, label=_short(label))
    axes.hlines(places, [i.low for i in found], [i.high for i in found], color=_INK, linewidth=1.2)


def differences(rows: Mapping[str, Interval], *, metric: str, name: str) -> Html:
    """Candidate minus control with intervals; right of zero is better."""
    with mpl.rc_context(_STYLE):
        figure, (axes,) = _figure(1, height_in=1.0 + 0.42 * len(rows))
        for place, interval in enumerate(rows.values()):
            axes.hlines(place, interval.low, interval.high, color=_SERIES[0], linewidth=2.5)
            axes.plot(interval.estimate, place, "o", color=_SERIES[0], markersize=7)
        axes.axvline(0, color=_INK, linewidth=1)
        axes.set_yticks(range(len(rows)), [_short(row) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(axis="x")
        axes.set_xlabel(f"difference in {_short(metric)} (right of the line: the candidate is better)")
        return _svg(figure, name, f"Difference in {metric} between candidate and control")


def trade(marks: Mapping[str, tuple[float, Interval]], *, chosen: str, metric: str, name: str) -> Html:
    """A mark per candidate: how many times as fast it is, and its points with their interval."""
    with mpl.rc_context(_STYLE):
        figure, (axes,) = _figure(1, height_in=3.4)
        axes.axhline(0, color=_INK, linewidth=1)
        for mark, (times, points) in marks.items():
            color = _SERIES[0] if mark == chosen else _SERIES[2]
            axes.vlines(times, points.low, points.high, color=color, linewidth=2)
            axes.plot(times, points.estimate, "o", color=color, markersize=7)
            axes.annotate(mark, (times, points.estimate), xytext=(7, 4), textcoords="offset points")
        axes.margins(x=0.12)
        axes.grid()
        axes.set_xlabel("times as fast as the uncompressed version")
        axes.set_ylabel(f"points of {_short(metric)}")
        return _svg(figure, name, f"Points of {metric} lost or gained, by speed, for each candidate")


def confusion(labels: Sequence[str], counts: Sequence[Sequence[int]], *, name: str) -> Html:
    """Rows are the truth, columns the answer; the shade is the share of the row, the number is the count."""
    size = len(labels)
    with mpl.rc_context(_STYLE):
        figure, (axes,) = _figure(1, height_in=min(1.3 + 0.55 * size, 9), width_in=min(2.6 + 1.0 * size, _WIDTH_IN))
        for i, row in enumerate(counts):
            for j, n in enumerate(row):
                share = n / max(sum(row), 1)
                box = mpl.patches.Rectangle(
                    (j - 0.48, i - 0.48), 0.96, 0.96, color=_SERIES[0], alpha=0.08 + 0.6 * share
                )
                axes.add_patch(box)
                axes.text(j, i, f"{n}", ha="center", va="center")
        axes.set_xlim(-0.5, size - 0.5)
        axes.set_ylim(size - 0.5, -0.5)
        turn = 0 if size <= 4 else 60
        axes.set_xticks(
            range(size), [_short(label, 14) for label in labels], rotation=turn, ha="right" if turn else "center"
        )
        axes.set_yticks(range(size), [_short(label, 14) for label in labels])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("answer")
        axes.set_ylabel("truth")
        return _svg(figure, name, "Confusion matrix: truth by row, answer by column")


def reliability(bins: Sequence[Mapping[str, float]], *, name: str) -> Html:
    """Share of right answers against confidence; on the diagonal a confidence means what it says."""
    most = max((b["n"] for b in bins), default=1)
    with mpl.rc_context(_STYLE):
        figure, (axes,) = _figure(1, height_in=4.0, width_in=4.4)
        axes.plot([0, 1], [0, 1], color=_INK, linewidth=1, linestyle=(0, (4, 4)))
        for b in bins:
            axes.plot([b["confidence"]] * 2, [b["confidence"], b["accuracy"]], color=_SERIES[1], linewidth=2)
        sizes = [20 + 180 * b["n"] / most for b in bins]
        axes.scatter(
            [b["confidence"] for b in bins], [b["accuracy"] for b in bins], s=sizes, color=_SERIES[0], alpha=0.8
        )
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.04)
        axes.grid()
        axes.set_xlabel("confidence of the answer")
        axes.set_ylabel("share of right answers")
        return _svg(figure, name, "Reliability diagram: share of right answers by confidence")


def evidence(rows: Mapping[str, tuple[float, float]], *, thresholds: Mapping[str, float], name: str) -> Html:
    """Evidence of benefit and of harm on a log scale; bars end at 100 times what the hardest decision needs."""
    most = 100 * max(thresholds.values())
    with mpl.rc_context(_STYLE):
        figure, (axes,) = _figure(1, height_in=1.3 + 0.5 * len(rows))
        axes.set_xscale("log")
        for i, (label, color) in enumerate((("better", _SERIES[0]), ("worse", _SERIES[1]))):
            places = [place + (i - 0.5) * 0.36 for place in range(len(rows))]
            values = [min(max(pair[i], 1.0), most) for pair in rows.values()]
            axes.barh(places, [v - 1 for v in values], left=1, height=0.32, color=color, alpha=0.8, label=label)
        for place, row in enumerate(rows):
            needed = thresholds[row]
            once = "needed to decide" if place == 0 else "_"  # matplotlib's own sign for: not in the legend
            axes.vlines(needed, place - 0.42, place + 0.42, color=_INK, linewidth=1.6, label=once)
        axes.set_xlim(1, 2 * max([*thresholds.values(), *(min(max(pair), most) for pair in rows.values())]))
        axes.xaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:,.0f}"))
        axes.set_yticks(range(len(rows)), [_short(row) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(axis="x")
        axes.set_xlabel("evidence (times as likely as if neither were better)")
        _legend_above(axes, 3)
        return _svg(figure, name, "Evidence for better and for worse, overall and per channel")


def evidence_over_time(
    curves: Mapping[str, Mapping[str, Sequence[float]]], needed: Mapping[str, float], *, name: str
) -> Html:
    """Evidence of benefit and of harm by the number of labels, a panel for each of `curves`, with what it takes.

    Drawn from a hundredth to 100 times that; curves beyond run along the edge.
    """
    n_rows = (len(curves) + 1) // 2
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH_IN * 1.3, 0.8 + 1.9 * n_rows), layout="constrained")
        panels = figure.subplots(n_rows, 2, squeeze=False).ravel()
        for axes, (label, curve) in zip(panels, curves.items(), strict=False):
            most = 100 * needed[label]
            for what, color in (("better", _SERIES[0]), ("worse", _SERIES[1])):
                key = "e_benefit" if what == "better" else "e_harm"
                values = [min(max(value, 0.01), most) for value in curve[key]]
                axes.plot(curve["n_labelled"], values, color=color, label=what, linewidth=1.6)
            axes.axhline(needed[label], color=_INK, linewidth=1, linestyle=(0, (4, 4)), label="needed to decide")
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:,g}"))
            axes.yaxis.set_minor_locator(mpl.ticker.NullLocator())
            axes.set_ylim(0.008, 2 * most)
            axes.set_title(_short(label), loc="left", fontsize=10)
            axes.grid(axis="y")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3, frameon=False)
        for axes in panels[len(curves) :]:
            axes.set_visible(False)
        figure.supxlabel("labelled answers", fontsize=10)
        figure.supylabel("evidence (times as likely)", fontsize=10)
        return _svg(figure, name, "Evidence for better and for worse by the number of labels, per channel")


def forecasts(curves: Mapping[str, Mapping[str, Any]], *, name: str) -> Html:
    """Wrong answers by training rows, a panel for each of `curves`: dots seen, the band what is forecast."""
    n_lines = (len(curves) + 1) // 2
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH_IN * 1.3, 0.8 + 1.7 * n_lines), layout="constrained")
        panels = figure.subplots(n_lines, 2, squeeze=False).ravel()
        for axes, (label, curve) in zip(panels, curves.items(), strict=False):
            seen, ahead = curve["seen"], curve["forecast"]
            rows = [part["n_rows"] for part in ahead]
            low, middle, high = ([part["error"][end] for part in ahead] for end in ("low", "estimate", "high"))
            axes.fill_between(rows, low, high, color=_SERIES[0], alpha=0.25, linewidth=0, label="90 % interval")
            axes.plot(rows, middle, color=_SERIES[0], linestyle=(0, (4, 3)), label="forecast")
            dots = [part["n_rows"] for part in seen], [part["error"] for part in seen]
            axes.plot(*dots, "o", color=_SERIES[2], markersize=4, label="seen")
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:,.0f}"))
            axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
            axes.set_xticks([seen[0]["n_rows"], rows[0], rows[-1]])
            axes.set_ylim(0, None)
            axes.set_title(_short(label), loc="left", fontsize=10)
            axes.grid(axis="y")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3, frameon=False)
        for axes in panels[len(curves) :]:
            axes.set_visible(False)
        figure.supxlabel("training rows of the channel", fontsize=10)
        figure.supylabel("share of wrong answers", fontsize=10)
        return _svg(figure, name, "Learning curves: share of wrong answers by training rows, with forecasts")


def _figure(n_rows: int, *, height_in: float, width_in: float = _WIDTH_IN) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    grid = figure.subplots(n_rows, 1, sharex=True, squeeze=False)
    return figure, list(grid[:, 0])


def _legend_above(axes: Axes, n_columns: int) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=n_columns, borderaxespad=0.2)


def _points(history: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    return [(line["step"], line[key]) for line in history if isinstance(line.get(key), int | float)]


def _short(text: str, limit: int = _MOST_CHARS) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def _svg(figure: Figure, name: str, label: str) -> Html:
    """The figure as an `<svg>` whose ids start with `name`, so that many fit one page."""
    buffer = io.StringIO()
    with warnings.catch_warnings(), mpl.rc_context({"svg.hashsalt": name}):
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")  # the browser has fonts for it
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    inner = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    inner = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", inner, flags=re.DOTALL)
    inner = re.sub(r'\bid="', f'id="{name}-', inner)
    inner = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", inner)
    inner = re.sub(r'style="[^"]*"', lambda found: _themed(found.group()), inner)
    width, height = (round(side * 72, 1) for side in figure.get_size_inches())
    return element(
        "svg",
        Html(inner),
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_label=label,
        style=f"max-width:{round(width * 4 / 3)}px",
    )


def _themed(style: str) -> str:
    for color, variable in _VARIABLES.items():
        style = style.replace(color, variable)
    return re.sub(r"font-family: [^;\"]*; ?", "", style)
