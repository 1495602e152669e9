"""`appliance policy ...` and `lists ...`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from appliance.commands import lists, policy
from appliance.core import DataClass
from appliance.grammar.command import add
from appliance.privacy.site.entry import LISTS

_TEST = """\
Show what would happen to a text, and why: its class, what is found in it, how it would be masked, each check of the
gate, the rule that decides, and where it might go. Nothing is sent, and nothing of it is kept. The text is looked
through by the appliance that runs, or where none does that lets anything out, by this command.

  appliance policy test letter.txt
  appliance policy test letter.txt --use-case letters --class confidential
  appliance policy test request.json --operation message
  echo "Frau Weber hat angerufen" | appliance policy test -
"""
_ADD = """\
Add names to a list: one to a line, other names of the same one behind it after semicolons. They come from a file or
from standard input, since everybody on this host sees what stands on a command line. People are written as
`Anna Weber` or `Weber, Anna`. The appliance looks for them from its next start on.

  appliance lists add client names.txt
  echo "Anna Weber; Weber-Wohnbau" | appliance lists add client
"""
_IMPORT = """\
Add the names of a text (one to a line) or of a table (CSV) to a list, or put them in its place.

  appliance lists import client clients.txt
  appliance lists import client clients.csv --column Vorname --column Nachname
  appliance lists import employee staff.csv --column 1 --replace
"""


def add_to(top: Any) -> None:
    """Add the commands."""
    rules = top.add_parser("policy", help="try what may leave the house", description="Try what may leave the house.")
    group = rules.add_subparsers(title="commands", metavar="COMMAND", required=True)
    command = add(group, "test", policy.test, "show what would happen to a text, and why", _TEST)
    command.add_argument("file", type=Path, metavar="FILE", help="a text, or a request as JSON; -: from standard input")
    command.add_argument("--use-case", metavar="NAME", help="as in X-Use-Case")
    command.add_argument("--class", dest="data_class", choices=[each.value for each in DataClass],
        help="as in X-Data-Class, or of a key (default: privacy.floor of the config)")  # fmt: skip
    command.add_argument("--operation", choices=("chat", "message"), default="chat",
        help="whose form a request has: OpenAI's chat, or Anthropic's message (default: %(default)s)")  # fmt: skip
    own = top.add_parser("lists", help="keep the site's own lists of names", description="Keep the site's own lists.")
    group = own.add_subparsers(title="commands", metavar="COMMAND", required=True)
    command = add(group, "add", lists.add, "add names to a list", _ADD)
    _add_list(command)
    _add_file(command)
    command = add(group, "remove", lists.remove, "take names off a list", (
        "Take names off a list: one to a line, as `appliance lists show --names` has them, from a file or from\n"
        "standard input.\n\n  appliance lists remove client gone.txt"
    ))  # fmt: skip
    _add_list(command)
    _add_file(command)
    command = add(group, "import", lists.import_, "add a whole file of names", _IMPORT)
    _add_list(command)
    command.add_argument("file", type=Path, metavar="FILE", help="a text or a table")
    command.add_argument("--column", action="append", default=[], metavar="NAME",
        help="a column with (a part of) the name, by its head or its number; again for more")  # fmt: skip
    command.add_argument("--replace", action="store_true", help="instead of all that stand on the list")
    command = add(group, "show", lists.show, "show how long the lists are", (
        "Show how many names stand on the lists; with --names the names themselves, which is put on record.\n\n"
        "  appliance lists show\n  appliance lists show client --names"
    ))  # fmt: skip
    _add_list(command, nargs="?")
    command.add_argument("--names", action="store_true", help="also the names")


def _add_list(command: argparse.ArgumentParser, nargs: str | None = None) -> None:
    command.add_argument(
        "list", nargs=nargs, choices=[kind.value for kind in LISTS], metavar="LIST",
        help=f"one of {', '.join(LISTS)}",
    )  # fmt: skip


def _add_file(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", nargs="?", type=Path, metavar="FILE", help="the names (default: standard input)")
