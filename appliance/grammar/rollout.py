"""`appliance rollout ...`."""

from __future__ import annotations

import argparse
from typing import Any

from appliance.commands import rollout
from appliance.grammar.command import add


def add_to(top: Any) -> None:
    """Add the commands."""
    command = add(top, "rollout", rollout.show, "compare a candidate with what serves now, and decide", (
        "Show the rollouts under way: both versions side by side over the window, and what follows so far. A rollout\n"
        "begins when the config names a candidate under `models.NAME.rollout` and is applied:\n\n"
        "  models:\n"
        "    chat:\n"
        "      card: smollm2-135m-int8\n"
        "      rollout: {card: smollm2-135m-bnb4, mode: canary, percent: 10}\n\n"
        "What is decided, by hand or by rule, outlives a restart; the config says it once you write it there."
    ))  # fmt: skip
    group = command.add_subparsers(title="commands", metavar="COMMAND")
    _of(group, "promote", rollout.promote, "have the candidate take over", (
        "Have the candidate answer all requests from now on, whatever the rules say. The version before it finishes\n"
        "the requests that it has and ends."
    ))  # fmt: skip
    _of(group, "drop", rollout.drop, "have the candidate get nothing any more", (
        "Have the version that served before answer all requests from now on. The candidate finishes the requests\n"
        "that it has and ends."
    ))  # fmt: skip
    weight = _of(group, "weight", rollout.weight, "give the candidate another share", (
        "Give the candidate so many percent of the requests, or of a shadow's copies, from the next request on. A\n"
        "larger share keeps all whom a smaller one had.\n\n  appliance rollout weight chat 25"
    ))  # fmt: skip
    weight.add_argument("percent", type=percent, metavar="PERCENT", help="0 to 100")


def percent(text: str) -> float:
    """A share from 0 to 100."""
    try:
        share = float(text.removesuffix("%"))
    except ValueError:
        share = -1.0
    if not 0 <= share <= 100:
        raise argparse.ArgumentTypeError("give a number from 0 to 100")
    return share


def _of(group: Any, name: str, run: Any, summary: str, about: str) -> argparse.ArgumentParser:
    command = add(group, name, run, summary, about)
    command.add_argument("name", metavar="NAME", help="the public name, as under `models:`")
    return command
