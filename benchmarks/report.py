"""The report of a run: one HTML file that loads nothing, and the same in a few lines for the terminal."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from appliance.config import Objectives
from benchmarks import charts, setting
from benchmarks.measured import Measured, Spread, Verdict, tokens_over_time

_STYLE = """
:root { --ink: #1f2933; --muted: #66727f; --line: #e4e7eb; --good: #2f9e6e; --bad: #d64545; --calm: #3e6fb0; }
* { box-sizing: border-box; }
body { margin: 0; background: #f5f7fa; color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 36px 24px 64px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 17px; margin: 36px 0 12px; }
p { margin: 0 0 12px; } .muted { color: var(--muted); }
.card { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px; }
.verdict { margin: 22px 0 14px; border-left: 6px solid var(--mark); padding: 20px 24px; }
.verdict strong { font-size: 21px; color: var(--mark); display: block; }
.met { --mark: var(--good); } .missed { --mark: var(--bad); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 14px; }
.tile span { display: block; color: var(--muted); font-size: 13px; }
.tile b { font-size: 25px; font-weight: 600; } .tile small { color: var(--muted); font-size: 14px; }
.bar { position: relative; height: 26px; background: var(--line); border-radius: 6px; margin: 34px 0 30px; }
.bar i { position: absolute; inset: 0 auto 0 0; background: var(--mark); border-radius: 6px; }
.bar u { position: absolute; top: -8px; bottom: -8px; width: 2px; background: var(--ink); }
.bar em { position: absolute; font-style: normal; font-size: 13px; white-space: nowrap; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 14px; }
.charts svg { width: 100%; height: auto; display: block; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: right; color: var(--muted); font-weight: 500; font-size: 13px; padding: 4px 10px 8px; }
td { text-align: right; padding: 7px 10px; border-top: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td.met { color: var(--good); } td.missed { color: var(--bad); font-weight: 600; }
dl { display: grid; grid-template-columns: 170px 1fr; gap: 6px 16px; margin: 0; }
dt { color: var(--muted); } dd { margin: 0; }
details { margin-top: 12px; } summary { cursor: pointer; color: var(--calm); }
pre { overflow-x: auto; background: #f5f7fa; border-radius: 6px; padding: 14px; font-size: 13px; line-height: 1.45; }
@media (max-width: 520px) { .charts { grid-template-columns: minmax(0, 1fr); } dl { grid-template-columns: 1fr; } }
@media print { body { background: #fff; } .card { break-inside: avoid; } }
"""
_TIMES = {
    "time_to_first_token_ms": "Time to first token",
    "inter_token_latency_ms": "Time between tokens (mean of a request)",
    "end_to_end_ms": "End to end",
}


def _spreads(verdict: Verdict) -> dict[str, Spread]:
    return {
        "time_to_first_token_ms": verdict.first_token_ms,
        "inter_token_latency_ms": verdict.mean_gap_ms,
        "end_to_end_ms": verdict.end_to_end_ms,
    }


def in_words(verdict: Verdict, objectives: Objectives) -> str:
    """The verdict as a table for a terminal."""
    lines = [f"{'':<42}{'p50':>9}{'p95':>9}{'p99':>9}{'objective':>12}{'within':>9}"]
    for name, spread in _spreads(verdict).items():
        figures = "".join(f"{value:>9,.0f}" for value in (spread.p50, spread.p95, spread.p99))
        lines.append(
            f"{_TIMES[name] + ', ms':<42}{figures}{getattr(objectives, name):>12,.0f}{verdict.within[name]:>9.1%}"
        )
    lines += [
        f"{verdict.requests} requests, {verdict.failed} failed"
        + "".join(f"; {count} x {error}" for error, count in verdict.errors.items()),
        f"{verdict.tokens_per_second:,.1f} output tokens/s; objective {objectives.tokens_per_second:,.0f}",
        f"{verdict.share:.1%} of requests met all; objective {objectives.share:.1%}",
        "✓ objectives met" if verdict.met else "✗ objectives missed",
    ]
    return "\n".join(lines)


def page(content: Mapping[str, Any], verdict: Verdict, objectives: Objectives, run: Sequence[Measured]) -> str:
    """The whole report. `content` is what report.json holds."""
    mark = "met" if verdict.met else "missed"
    about, scenario = content["setting"], content["scenario"]
    title = f"Chat benchmark: {scenario['users']} people, model “{scenario['model']}”"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{_text(title)}: objectives {mark}</title><style>{_STYLE}</style></head><body><main>
<h1>{_text(title)}</h1>
<p class="muted">{_text(_when(about["date"]))} &middot; {verdict.seconds:.0f} seconds &middot;
{verdict.requests:,} requests &middot; {verdict.tokens:,} tokens written</p>
<div class="card verdict {mark}"><strong>Objectives {mark}</strong>
{verdict.share:.1%} of requests met every objective on time; {objectives.share:.1%} have to.{_rate(verdict, objectives)}
{_goodput(verdict, objectives)}</div>
<div class="tiles">
{_tile("First token, median", verdict.first_token_ms.p50, "ms")}
{_tile("Between tokens, median", verdict.mean_gap_ms.p50, "ms")}
{_tile("End to end, median", verdict.end_to_end_ms.p50 / 1000, "s", 1)}
{_tile("Output", verdict.tokens_per_second, "tokens/s")}
{_tile("Failed", verdict.failed, f"of {verdict.requests:,}")}
</div>
<h2>Objectives</h2><div class="card">{_objectives(verdict, objectives)}{_errors(verdict)}</div>
<h2>What people saw</h2><div class="charts">{_charts(verdict, objectives, run)}</div>
<h2>How it was measured</h2><div class="card">{_how(content)}</div>
</main></body></html>
"""


def _text(value: object) -> str:
    return html.escape(str(value))


def _when(date: str) -> str:
    return date[:16].replace("T", " ") + " " + date[19:]


def _rate(verdict: Verdict, objectives: Objectives) -> str:
    if not objectives.tokens_per_second:
        return ""
    return f" {verdict.tokens_per_second:,.0f} tokens/s were written; {objectives.tokens_per_second:,.0f} have to be."


def _goodput(verdict: Verdict, objectives: Objectives) -> str:
    reached, wanted = 100 * verdict.share, 100 * objectives.share
    side = f"right:{100 - wanted:.2f}%;padding-right:7px" if wanted > 50 else f"left:{wanted:.2f}%;padding-left:7px"
    return (
        f'<div class="bar" role="img" aria-label="goodput {reached:.1f} %, objective {wanted:.1f} %">'
        f'<i style="width:{reached:.2f}%"></i><u style="left:calc({wanted:.2f}% - 1px)"></u>'
        f'<em style="top:-25px;{side}">objective {wanted:.0f} %</em>'
        f'<em style="bottom:-24px;left:0" class="muted">'
        f"goodput: requests that met all objectives, {reached:.1f} %</em></div>"
    )


def _tile(label: str, value: float, unit: str, digits: int = 0) -> str:
    return f'<div class="card tile"><span>{label}</span><b>{value:,.{digits}f}</b> <small>{_text(unit)}</small></div>'


def _objectives(verdict: Verdict, objectives: Objectives) -> str:
    rows = []
    for name, spread in _spreads(verdict).items():
        within = verdict.within[name]
        figures = "".join(f"<td>{value:,.0f} ms</td>" for value in (spread.p50, spread.p95, spread.p99, spread.most))
        rows.append(
            f"<tr><td>{_TIMES[name]}</td>{figures}<td>{getattr(objectives, name):,.0f} ms</td>"
            f'<td class="{"met" if within >= objectives.share else "missed"}">{within:.1%}</td></tr>'
        )
    return (
        "<table><tr><th></th><th>p50</th><th>p95</th><th>p99</th><th>worst</th><th>objective</th>"
        f"<th>requests within</th></tr>{''.join(rows)}</table>"
    )


def _errors(verdict: Verdict) -> str:
    if not verdict.errors:
        return ""
    found = ", ".join(f"{count} &times; {_text(error)}" for error, count in verdict.errors.items())
    return f'<p style="margin-top:14px">Failed requests count as missed: {found}.</p>'


def _charts(verdict: Verdict, objectives: Objectives, run: Sequence[Measured]) -> str:
    good = [each for each in run if not each.error]
    began = min((each.started for each in run), default=0.0)

    def dots(chosen: Sequence[Measured]) -> list[tuple[float, float]]:
        return [(each.started - began, each.end_to_end_ms / 1000) for each in chosen]

    groups = {
        "met": (charts.CALM, dots([each for each in good if not each.missed(objectives)])),
        "missed": (charts.BAD, dots([each for each in run if each.missed(objectives)])),
    }
    bin_seconds = max(1.0, verdict.seconds / 120)
    drawn = (
        charts.histogram(
            [each.first_token_ms for each in good],
            title="Time to first token", x="milliseconds", limit=objectives.time_to_first_token_ms,
        ),
        charts.histogram(
            [gap for each in good for gap in each.gaps_ms],
            title="Every gap between tokens", x="milliseconds (counts on a logarithmic scale)", steep=True,
        ),
        charts.area(
            tokens_over_time(run, bin_seconds=bin_seconds),
            title="Output tokens per second", x="seconds into the run", y="",
        ),
        charts.scatter(
            groups, title="Requests, end to end", x="asked at, seconds into the run", y="seconds",
            limit=objectives.end_to_end_ms / 1000,
        ),
    )  # fmt: skip
    return "".join(f'<div class="card">{each}</div>' for each in drawn)


def _how(content: Mapping[str, Any]) -> str:
    about, scenario, model = content["setting"], content["scenario"], content["model"]
    packages = ", ".join(f"{name} {version}" for name, version in about["packages"].items() if version)
    rows = {
        "People": f"{scenario['users']}, each asking again {scenario['think_seconds']:g} s after an answer on average, "
        f"in conversations of one to four turns, German and English; seed {scenario['seed']}",
        "Clock": "stands beside the caller: from sending a request to each piece of its streamed answer",
        "Model": f"{model['name']}" + (f" ({model['card']})" if model["card"] else ""),
        "Machine": setting.machine(about),
        "Software": f"appliance {about['appliance']}, Python {about['python']}, {about['system']}; {packages}",
    }
    facts = "".join(f"<dt>{name}</dt><dd>{_text(value)}</dd>" for name, value in rows.items())
    return f"<dl>{facts}</dl>{_folded('Model card', model['text'])}{_folded('Config', content['config'])}"


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary><pre>{_text(text)}</pre></details>" if text else ""
