"""What a terminal shows of evaluations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from appliance.evaluation.figures import Interval
from appliance.evaluation.results import Compared, Result, SetResult, compare

_MOST_FAILED = 8


def one(result: Result) -> list[str]:
    """A result, with the cases that failed and why."""
    width = max((len(name) for name in _names(result)), default=0)
    lines = [f"{result.model}: {about(result)}"]
    for each in result.sets:
        lines.append(f"  {each.name:<{width}}  {each.language}  {_passed(each)}")
        lines += _failed(each)
    lines += [
        f"  {text.name:<{width}}  {text.language}  perplexity {text.perplexity:.2f}, "
        f"{text.bits_per_byte:.3f} bits per byte"
        for text in result.texts
    ]
    return lines


def side_by_side(first: Result, second: Result) -> list[str]:
    """Two results: the first, the second, and by how much the second is apart from the first."""
    compared = compare(second, first)
    width = max((len(name) for name in _names(second)), default=0)
    columns = max(len(first.version), len(second.version), 16)
    lines = [
        f"{'':<{width}}      {first.version:<{columns}}  {second.version:<{columns}}  difference (95 % of it)",
        f"{'':<{width}}      {first.format_of_weights:<{columns}}  {second.format_of_weights}",
    ]
    for each in compared:
        was = _short(each.other) if each.other is not None else "-"
        cells = f"{each.name:<{width}}  {each.one.language}  {was:<{columns}}  {_short(each.one):<{columns}}"
        lines.append(f"{cells}  {_apart(each)}")
    before = {each.name: each for each in first.texts}
    for text in second.texts:
        old = before.get(text.name)
        same = old is not None and old.version == text.version
        was = f"{old.perplexity:.2f}" if old is not None else "-"
        now = f"{text.perplexity:.2f}"
        more = (
            f"{text.perplexity / old.perplexity - 1:+.1%} perplexity" if same and old else "not compared: another text"
        )
        lines.append(f"{text.name:<{width}}  {text.language}  {was:<{columns}}  {now:<{columns}}  {more}")
    return lines


def over_time(results: Sequence[Result]) -> list[str]:
    """A line for each result, oldest first; `*` marks a set that was changed since the line before."""
    names = sorted({each.name for result in results for each in result.sets})
    widths = [max(len(name), 12) for name in names]
    version = max((len(result.version) for result in results), default=0)
    quantized = max((len(result.format_of_weights) for result in results), default=0)
    head = "  ".join(f"{name:<{width}}" for name, width in zip(names, widths, strict=True))
    lines = [f"{'when (UTC)':<16}  {'model':<{version}}  {'':<{quantized}}  {head}"]
    before: dict[str, str] = {}
    for result in results:
        sets = {each.name: each for each in result.sets}
        cells = []
        for name, width in zip(names, widths, strict=True):
            found = sets.get(name)
            mark = "*" if found is not None and before.get(name, found.version) != found.version else ""
            cells.append(f"{(_short(found) + mark) if found is not None else '':<{width}}")
        before |= {each.name: each.version for each in result.sets}
        when = result.at[:16].replace("T", " ")
        lines.append(
            f"{when}  {result.version:<{version}}  {result.format_of_weights:<{quantized}}  {'  '.join(cells)}".rstrip()
        )
    return lines


def about(result: Result) -> str:
    """What was evaluated, in a line."""
    weights = f"{result.version}, {result.format_of_weights}" if result.weights else "an endpoint's"
    again = f", {result.repeat} times each" if result.repeat > 1 else ""
    asked = [f"judged by {result.judge.model}"] if result.judge else []
    return ", ".join([f"{weights} on {result.device}{again}", *asked])


def percent(share: Interval) -> str:
    """An interval of a share, as `48 to 85 %`."""
    return f"{share.low:.0%}"[:-1] + f" to {share.high:.0%}".replace("%", " %")


def _names(result: Result) -> list[str]:
    return [*(each.name for each in result.sets), *(each.name for each in result.texts)]


def _passed(each: SetResult) -> str:
    left = f"; {len(each.left_out)} left out, for want of a judge or an embedding model" if each.left_out else ""
    if not each.cases:
        return f"nothing asked{left}"
    return f"{each.passed:g} of {len(each.cases)} passed ({percent(each.share)}){left}"


def _short(each: SetResult) -> str:
    return f"{each.share.value:.0%} of {len(each.cases)}" if each.cases else "-"


def _apart(each: Compared) -> str:
    if each.apart is None:
        return f"not compared: {each.why_not}"
    points = [f"{value * 100:+.0f}" for value in each.apart]
    certain = "" if each.apart.low <= 0 <= each.apart.high else "  !" if each.apart.value < 0 else "  better"
    return f"{points[0]} points ({points[1]} to {points[2]}){certain}"


def _failed(each: SetResult) -> Iterator[str]:
    failed = [case for case in each.cases if case.passed < 1]
    for case in failed[:_MOST_FAILED]:
        whys = "; ".join(f"{check.kind}: {check.why}" for check in case.checks if check.passed < 1)
        yield f"      ✗ {case.id:<24} {whys}"
    if len(failed) > _MOST_FAILED:
        yield f"      … and {len(failed) - _MOST_FAILED} more; --json tells all"
