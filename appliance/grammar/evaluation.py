"""`appliance eval`."""

from __future__ import annotations

import argparse
from typing import Any

from appliance.commands import evaluation
from appliance.grammar.command import add, page

_ABOUT = """\
Ask a model the golden examples of models/evals/ (the company's) and models/CARD/evals/ (its own), through the
appliance's own endpoint, and hold the answers to their checks. Needs a running appliance, and goes behind the
people at work: its requests are of the class batch, two at a time. Results are kept in the state folder, under
evaluations/; interrupted, it leaves none.

  appliance eval chat                                     how good is what people are served?
  appliance eval --card smollm2-135m-bf16                 ... would this one be? On trial, served to nobody
  appliance eval --card smollm2-135m-bnb4 --against smollm2-135m-bf16 --perplexity
                                                          what do 4 bits cost?
  appliance eval chat --history --plot chat.html          how has it changed?
"""


def add_to(top: Any) -> None:
    """Add the command."""
    command = add(top, "eval", evaluation.evaluate, "say how good a model's answers are, by your own examples", _ABOUT)
    command.add_argument("models", nargs="*", metavar="MODEL", help="public name of a model that is served")
    command.add_argument("--card", metavar="CARD", help="a card that isn't served: an engine of it is started for this")
    command.add_argument("--set", action="append", default=[], metavar="NAME", help="only this set; may stand again")
    command.add_argument(
        "--against", metavar="NAME", help="evaluate this one, too (a card with --card), and show the difference"
    )
    command.add_argument("--perplexity", action="store_true", help="also measure how well it foresees fixed texts")
    command.add_argument("--judge", metavar="MODEL", help="the served model that judges, for cases with a `judge`")
    command.add_argument(
        "--embedding", metavar="MODEL", help="the served model for `similar` (default: the only one for embeddings)"
    )
    command.add_argument("--seed", type=_whole, metavar="N", help="in place of the sets' own seeds")
    command.add_argument("--repeat", type=_times, default=1, metavar="N", help="ask each case so often (default: 1)")
    command.add_argument("--connections", type=_times, default=2, metavar="N", help="requests at a time (default: 2)")
    command.add_argument("--keep-answers", action="store_true", help="keep the answers with the result, readable")
    command.add_argument("--history", action="store_true", help="show what was found before; asks nobody")
    command.add_argument("--plot", type=page, metavar="FILE", help="with --history: also draw it, as a page (HTML)")


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**31:
        raise argparse.ArgumentTypeError("give a whole number from 0 to 2147483647")
    return int(text)


def _times(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError("give a whole number from 1 to 64")
    return int(text)
