"""The history of a model as a page to show or print: a panel for each set, no script, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape
from itertools import pairwise
from typing import NamedTuple

from appliance.evaluation.results import Result, SetResult

_COLOURS = ("#3e6fb0", "#2f9e6e", "#b5651d", "#8b5fbf", "#c2476b", "#5b7083", "#a08a1f", "#2a8fa3")
_WIDTH, _LEFT, _RIGHT, _HIGH, _ABOVE, _BELOW = 960, 54, 74, 132, 14, 34
_MOST_LABELS = 10

_STYLE = """
:root { color: #1f2933; background: #fff; font: 15px/1.5 system-ui, "Segoe UI", "Helvetica Neue", sans-serif; }
body { max-width: 960px; margin: 40px auto; padding: 0 24px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 16px; margin: 30px 0 0; }
p { color: #52606d; margin: 0 0 10px; } svg { display: block; width: 100%; height: auto; }
svg text { font-size: 12px; fill: #7b8794; } svg .now { font-size: 14px; font-weight: 600; fill: #1f2933; }
.key { display: flex; flex-wrap: wrap; gap: 6px 22px; margin: 18px 0 0; padding: 0; list-style: none; color: #323f4b; }
.key i { display: inline-block; width: 11px; height: 11px; border-radius: 6px; margin-right: 7px; }
table { border-collapse: collapse; width: 100%; margin-top: 12px; font-size: 13px; }
th, td { text-align: left; padding: 5px 10px 5px 0; border-bottom: 1px solid #e4e7eb; vertical-align: top; }
th { color: #52606d; font-weight: 600; } small { color: #7b8794; }
section { break-inside: avoid; } @media print { body { margin: 0; } }
"""


class _Point(NamedTuple):
    at: int
    """Which evaluation, from 0."""
    value: float
    low: float
    high: float
    colour: str
    joined: bool
    """Whether it can be compared with the point before."""


def history(name: str, results: Sequence[Result]) -> str:
    """The page about the results of `name`, oldest first; at least one."""
    versions = list(dict.fromkeys(result.version for result in results))
    colours = {version: _COLOURS[index % len(_COLOURS)] for index, version in enumerate(versions)}
    quantized = {result.version: result.format_of_weights for result in results}
    key = "".join(
        f'<li><i style="background:{colours[each]}"></i>{escape(each)} <small>{escape(quantized[each])}</small></li>'
        for each in versions
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(name)}: evaluations</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(name)}: how good its answers are</h1>"
        f"<p>{len(results)} evaluations, {_day(results[0])} to {_day(results[-1])}. Each point is the share of a set's "
        "cases that passed; the bar through it is where the true share lies with 95 % certainty. Points are joined "
        "where the same set was asked in the same way.</p>"
        f'<ul class="key">{key}</ul>{"".join(_panels(results, colours))}{_table(results)}</body></html>\n'
    )


def _panels(results: Sequence[Result], colours: dict[str, str]) -> Iterator[str]:
    days = [_day(result) for result in results]
    for name in _asked(results):
        found = [next((each for each in result.sets if each.name == name), None) for result in results]
        points = list(_shares(results, found, colours))
        title = next(each.title for each in reversed(found) if each is not None)
        language = next(each.language for each in reversed(found) if each is not None)
        yield _panel(f"{name} ({language})", title, points, days, 0.0, 1.0, lambda value: f"{value * 100:.0f} %")
    for name in sorted({each.name for result in results for each in result.texts}):
        points, before = [], ""
        for at, result in enumerate(results):
            for text in result.texts:
                if text.name == name:
                    value, colour = text.perplexity, colours[result.version]
                    points.append(_Point(at, value, value, value, colour, joined=before == text.version))
                    before = text.version
        top = max(point.value for point in points) * 1.15
        about = "perplexity: how surprised the model is by this text; less is better"
        yield _panel(name, about, points, days, 0.0, top, lambda value: f"{value:.1f}")


def _asked(results: Sequence[Result]) -> list[str]:
    """The sets of which a case was asked at least once."""
    return sorted({each.name for result in results for each in result.sets if each.cases})


def _shares(results: Sequence[Result], found: Sequence[SetResult | None], colours: dict[str, str]) -> Iterator[_Point]:
    before: object = None
    for at, (result, each) in enumerate(zip(results, found, strict=True)):
        if each is None or not each.cases:
            continue
        asked = (each.version, result.seed, result.repeat, each.left_out, result.judge, result.embedding)
        yield _Point(at, *each.share, colours[result.version], joined=before == asked)
        before = asked


def _panel(
    name: str, about: str, points: Sequence[_Point], days: Sequence[str], low: float, high: float,
    shown: Callable[[float], str],
) -> str:  # fmt: skip
    reach = _WIDTH - _LEFT - _RIGHT

    def x(at: int) -> float:
        return _LEFT + (reach * (at + 0.5) / len(days))

    def y(value: float) -> float:
        return _ABOVE + _HIGH * (1 - (value - low) / (high - low))

    last = points[-1].value
    return (
        f"<section><h2>{escape(name)}</h2><p>{escape(about)}</p>"
        f'<svg viewBox="0 0 {_WIDTH} {_ABOVE + _HIGH + _BELOW}" role="img" aria-label="{escape(name)}">'
        + "".join(_grid(low, high, y, shown))
        + "".join(_days(days, x))
        + "".join(_joints(points, x, y))
        + "".join(_marks(points, x, y))
        + f'<text class="now" x="{_WIDTH - _RIGHT + 12}" y="{y(last) + 5:.1f}">{shown(last)}</text>'
        + "</svg></section>"
    )


def _grid(low: float, high: float, y: Callable[[float], float], shown: Callable[[float], str]) -> Iterator[str]:
    for value in (low, (low + high) / 2, high):
        at = f"{y(value):.1f}"
        yield f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at}" y2="{at}" stroke="#e4e7eb"/>'
        yield f'<text x="{_LEFT - 10}" y="{y(value) + 4:.1f}" text-anchor="end">{shown(value)}</text>'


def _days(days: Sequence[str], x: Callable[[int], float]) -> Iterator[str]:
    every = -(-len(days) // _MOST_LABELS)
    told = ""
    for at in range(0, len(days), every):
        if days[at] != told:
            yield f'<text x="{x(at):.1f}" y="{_ABOVE + _HIGH + 22}" text-anchor="middle">{days[at]}</text>'
        told = days[at]


def _joints(points: Sequence[_Point], x: Callable[[int], float], y: Callable[[float], float]) -> Iterator[str]:
    for one, other in pairwise(points):
        if other.joined:
            ends = f'x1="{x(one.at):.1f}" y1="{y(one.value):.1f}" x2="{x(other.at):.1f}" y2="{y(other.value):.1f}"'
            yield f'<line {ends} stroke="#9aa5b1" stroke-width="1.5"/>'


def _marks(points: Iterable[_Point], x: Callable[[int], float], y: Callable[[float], float]) -> Iterator[str]:
    for each in points:
        at = f"{x(each.at):.1f}"
        yield (
            f'<line x1="{at}" x2="{at}" y1="{y(each.low):.1f}" y2="{y(each.high):.1f}" stroke="{each.colour}" '
            'stroke-width="5" stroke-linecap="round" opacity="0.22"/>'
            f'<circle cx="{at}" cy="{y(each.value):.1f}" r="5" fill="{each.colour}" stroke="#fff" stroke-width="1.5"/>'
        )


def _table(results: Sequence[Result]) -> str:
    names = _asked(results)
    head = "".join(f"<th>{escape(each)}</th>" for each in ("when (UTC)", "model", "engine", *names))
    rows = []
    for result in reversed(results):
        sets = {each.name: each for each in result.sets}
        cells = "".join(f"<td>{_cell(sets.get(name))}</td>" for name in names)
        about = f"{escape(result.version)}<br><small>{escape(result.format_of_weights)}</small>"
        when = result.at[:16].replace("T", " ")
        rows.append(f"<tr><td>{when}</td><td>{about}</td><td><small>{escape(result.engine)}</small></td>{cells}</tr>")
    return f"<h2>All results, newest first</h2><table><tr>{head}</tr>{''.join(rows)}</table>"


def _cell(found: SetResult | None) -> str:
    if found is None or not found.cases:
        return ""
    return (
        f"{found.share.value * 100:.0f} % of {len(found.cases)}<br>"
        f"<small>{found.share.low * 100:.0f} to {found.share.high * 100:.0f} %; set {found.version[:8]}</small>"
    )


def _day(result: Result) -> str:
    return result.at[:10]
