"""`appliance plan`: what fits into this host's memory."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from appliance.commands import FAILED, OK, write

if TYPE_CHECKING:
    from appliance.engines.capacity import Memory
    from appliance.engines.fitting import Fitting

_WIDTH = 40
"""Characters of the whole memory."""
_PATIENCE = 15.0


def plan(options: argparse.Namespace) -> int:
    """Say what fits."""
    from appliance import config, control
    from appliance.engines.capacity import Gpu, Memory
    from appliance.engines.fitting import fitting
    from appliance.engines.measured import Measured
    from appliance.engines.memory import Kernel, gpus
    from appliance.engines.specs import Machine, device
    from appliance.errors import NotRunning

    loaded = config.load(options.config)
    settings = loaded.settings.engines
    on = device(loaded, Machine.here())
    try:
        (status,) = control.ask(loaded.state, "GET", "/status", patience=_PATIENCE)
    except NotRunning:
        status = {"memory": None}
    holds: dict[str, float] = {}
    if (told := status["memory"]) is not None:  # as the appliance sees it: it may be limited otherwise than this shell
        cards = tuple(Gpu(**gpu) for gpu in told["gpus"])
        memory = Memory.of_engines(settings, told["total"], told["free"], cards)
        holds = {} if cards else {slot: model["holds"] for slot, model in told["models"].items()}
    else:
        memory = Memory.of_engines(settings, Kernel().total(), Kernel().free(), gpus() if on == "cuda" else ())
    found = fitting(loaded, on, memory, sum(holds.values()), Measured(loaded.state))
    if options.json:
        write(json.dumps(_as_json(found, memory, holds, running=told is not None), indent=1))
    else:
        write("\n".join(lines(found, memory, holds, running=told is not None)))
    return OK if found.why is None else FAILED


def lines(found: Fitting, memory: Memory, holds: Mapping[str, float], *, running: bool) -> list[str]:
    """What a person is shown."""
    from appliance.console import alarm, bold

    kind = "GPU memory" if memory.gpus else "Main memory"
    shown = [bold(f"{kind}: {memory.total:.1f} GiB"), *_chart(found, memory, sum(holds.values())), ""]
    for slot, each in found.wanted.items():
        what = f"  {slot}: {each.card} needs {each.need.gib:.1f} GiB ({each.need.words})"
        if slot in holds:
            what += f"; holds {holds[slot]:.1f} now" if holds[slot] else "; rests now"
        shown.append(what)
    if found.why is None:
        turns = sum(each.need.may_idle for each in found.wanted.values()) > 1
        all_ = "those that never idle fit, each with any one of those that may" if turns else "all of them fit together"
        shown.append(f"✓ {all_}{'' if running else ' (no appliance runs: reckoned for this host as it is now)'}")
    else:
        shown += [alarm(f"✗ it doesn't fit: {found.why}"), "  Any of these helps:"]
        shown += [f"    - {advice}" for advice in found.advice]
    if found.unserved:
        shown += ["", bold("Cards that aren't served")]
    for card in found.unserved:
        if card.need is None:
            shown.append(f"  {card.card:<22} {card.task:<10} {'':>9}  {card.why}")
            continue
        instead = f"in the place of {', '.join(card.instead_of)}" if card.instead_of else ""
        fits = " or ".join(filter(None, ["besides all of them" if card.besides else "", instead]))
        from_ = f" ({card.need.words})" if card.need.known else ""
        says = f"fits {fits}" if fits else card.why
        shown.append(f"  {card.card:<22} {card.task:<10} {card.need.gib:>5.1f} GiB  {says}{from_}")
    return shown


def _chart(found: Fitting, memory: Memory, held: float) -> Iterator[str]:
    """A bar for each that takes something, one after the other: the last shows what is left."""
    models = [(slot, each.need.gib, "░" if each.need.may_idle else "█") for slot, each in found.wanted.items()]
    if memory.most is not None and memory.most < memory.free + held - memory.reserve:
        total, rows = memory.most, models
        yield f"  of which `engines.memory_gib` lets engines take {total:g}"
    else:
        others = ("others", max(0.0, memory.total - memory.free - held), "▒")
        reserve = [("reserve", memory.reserve, "·")] if memory.reserve else []
        total, rows = memory.total, [others, *models, *reserve]
    names = max(len(name) for name, _, _ in (*rows, ("missing", 0.0, "")))
    at = 0.0
    for name, gib, mark in rows:
        note = "  may idle" if mark == "░" else ""
        yield f"  {name:<{names}} {gib:>6.1f}  {_bar(at, gib, total, mark)}{note}"
        at += gib
    if total >= at:
        yield f"  {'free':<{names}} {total - at:>6.1f}  {_bar(total, 0, total, ' ')}"
    else:
        yield f"  {'missing':<{names}} {at - total:>6.1f}  {_bar(total, 0, total, ' ')} if all run at once"


def _bar(at: float, gib: float, total: float, mark: str) -> str:
    """A piece of the whole from `at` on; what goes over its end stands behind it."""
    begin, end = (round(each / total * _WIDTH) for each in (at, at + gib))
    end = max(end, begin + (gib > 0))
    bar = [mark if begin <= place < end else " " for place in range(max(_WIDTH, min(end, 2 * _WIDTH)))]
    return "".join([*bar[:_WIDTH], "│", *bar[_WIDTH:]])


def _as_json(found: Fitting, memory: Memory, holds: Mapping[str, float], *, running: bool) -> dict[str, Any]:
    from dataclasses import asdict

    models = {
        slot: {
            "card": each.card, "needs_gib": round(each.need.gib, 3), "parts": dict(each.need.parts),
            "reckoned": each.need.words, "may_idle": each.need.may_idle, "holds_gib": holds.get(slot),
        }
        for slot, each in found.wanted.items()
    }  # fmt: skip
    cards = {
        card.card: {
            "task": card.task, "needs_gib": None if card.need is None else round(card.need.gib, 3),
            "fits_besides": card.besides, "fits_instead_of": list(card.instead_of), "why": card.why,
        }
        for card in found.unserved
    }  # fmt: skip
    return {
        "running": running, "fits": found.why is None, "why": found.why, "advice": list(found.advice),
        "memory": {**asdict(memory), "of": memory.of}, "models": models, "cards": cards,
    }  # fmt: skip
