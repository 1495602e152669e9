"""The command line."""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from appliance import __version__, commands, key_commands, usage_command
from appliance.core import Role, ServiceClass
from appliance.errors import ApplianceError, BadRequest, Invalid, NotFound, NotRunning, WeightsInvalid

WRONG_INPUT, NOT_RUNNING = 2, 3

_EPILOG = """\
a first session:
  make serve                              set everything up and serve the default model
  appliance status                        what runs, and whether it is well
  appliance keys create --user anna       a key for a colleague
  appliance models list                   which models there are to choose from
  $EDITOR configs/appliance.yaml          name another card under models:
  appliance check-config                  is the file right?
  appliance models prepare NAME           fetch and convert its weights
  appliance apply                         swap it in while people work

exit status:
  0 done    1 it failed, nothing was changed    2 the config or command line is wrong
  3 no appliance is running
"""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return its exit status."""
    options = parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (Invalid, WeightsInvalid, BadRequest, NotFound) as refusal:
        return _complain(options, refusal, WRONG_INPUT)
    except NotRunning as refusal:
        return _complain(options, refusal, NOT_RUNNING)
    except ApplianceError as failure:
        return _complain(options, failure, commands.FAILED)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return commands.OK


def _complain(options: argparse.Namespace, error: ApplianceError, status: int) -> int:
    if getattr(options, "json", False):
        problems = [
            {"where": each.where, "line": each.line, "what": each.what} for each in getattr(error, "problems", [])
        ]
        commands.write(json.dumps({"error": str(error), "problems": problems}))
    else:
        sys.stderr.write(f"appliance: {error}\n")
    return status


def _page(text: str) -> Path:
    """A file that can be written, as far as can be told before it is."""
    file = Path(text)
    try:
        if file.exists():
            file.open("ab").close()
        else:
            tempfile.TemporaryFile(dir=file.parent).close()
    except OSError as cause:
        raise argparse.ArgumentTypeError(f"{file} can't be written: {cause.strerror}") from None
    return file


def _fingerprint(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{32}", text.replace(" ", "").replace(":", ""), re.IGNORECASE):
        raise argparse.ArgumentTypeError("a fingerprint is eight groups of four digits (0-9, a-f), in quotes")
    return text


_KEYS_CREATE = """\
Make a key and show it, once. Works while the appliance runs, and when it doesn't.

  appliance keys create --user anna --team sales
  appliance keys create --user anna --team sales --expires 90d --tokens-per-day 200000
  appliance keys create --name "mail sorter" --team sales --use-case mail --class batch --euros-per-month 50
  appliance keys create --user ben --role admin

Roles: user asks; power_user also keeps templates and batches; admin looks after the keys of both and sees all
usage; super_admin grants every role; auditor reads audit and reports. Who administers needs a second key to ask.
Without a limit of its own a key has those of accounts.each_key in the config, and with one only its own. Those of its
user, team and use case hold beside them.
"""
_KEYS_ROTATE = """\
Put a new key in the place of an old one, and show it, once. The old one opens for a while beside it.

  appliance keys rotate key_4f0c2a91d3e7
  appliance keys rotate key_4f0c2a91d3e7 --overlap 7d --expires 90d
  appliance keys rotate key_4f0c2a91d3e7 --overlap 0h
"""
_KEYS_REVOKE = """\
Let a key open nothing any more, and if it was rotated, the old one neither. Every appliance on the store refuses it
within a second. There is no way back; make a new one.

  appliance keys revoke key_4f0c2a91d3e7
"""


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    root = argparse.ArgumentParser(
        prog="appliance",
        description="Serves open-weight models on this host to the apps of this house, and to nobody else.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action="version", version=__version__)
    top = root.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(
        group: Any,
        name: str,
        run: Callable[[argparse.Namespace], int],
        summary: str,
        about: str,
        *,
        script: bool = True,
    ) -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = group.add_parser(
            name, help=summary, description=about, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.add_argument(
            "--config", type=Path, default=Path("configs/appliance.yaml"), metavar="FILE",
            help="the config (default: %(default)s)",
        )  # fmt: skip
        if script:
            command.add_argument("--json", action="store_true", help="print JSON, for scripts")
        command.set_defaults(run=run)
        return command

    add(top, "serve", commands.serve, "run the appliance", (
        "Start the engines of the config, seal this process off the network, and serve until SIGTERM or Ctrl-C.\n"
        "Prints the address and, at the first start, a key. Logs go to the state folder."
    ), script=False)  # fmt: skip
    add(top, "apply", commands.apply, "put the edited config into effect while people work", (
        "Tell the running appliance to read its config again. New engines start beside the old ones; when all\n"
        "have answered, the names move over and the old engines finish their requests. If anything is wrong,\n"
        "nothing changes and this says why."
    ))  # fmt: skip
    add(top, "check-config", commands.check_config, "say whether the config is right", (
        "Read the config and the cards it names; report every mistake with its line. Changes nothing."
    ))  # fmt: skip
    add(top, "status", commands.status, "show what runs and whether it is well", (
        "Show the state of each model and of the seal. Exit status 0 only when every model can answer, and requests\n"
        "are not refused for want of a proof."
    ))  # fmt: skip
    egress = top.add_parser("egress", help="prove that nothing leaves", description="Prove that nothing leaves.")
    group = egress.add_subparsers(title="commands", metavar="COMMAND", required=True)
    command = add(group, "verify", commands.egress_verify, "prove it now, on the running appliance", (
        "Look at every process, thread and open socket of the running appliance, try every known way out from\n"
        "inside each seal and beside it without one, and write a signed report. Run it as the appliance's own user\n"
        "or as root. Takes a few seconds. Exit status 0 only when everything holds; 1 also when the appliance runs\n"
        "but doesn't answer, or the report can't be kept."
    ))  # fmt: skip
    command.add_argument("--html", type=_page, metavar="FILE", help="also write the report as a page to print")
    command = add(group, "report", commands.egress_report, "show a report that was written before", (
        "Show the newest report, or the one with that number."
    ))  # fmt: skip
    command.add_argument("number", nargs="?", type=int, metavar="NUMBER", help="which (default: the newest)")
    command.add_argument("--html", type=_page, metavar="FILE", help="also write it as a page to print")
    command = add(group, "check", commands.egress_check, "check that reports are genuine and complete", (
        "Check signatures and the chain of all reports of this appliance, or of a copy of its folder `egress`: tells\n"
        "what was changed, removed or put in. Of one report in a file it tells whether it is genuine, and what it says."
    ))  # fmt: skip
    command.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="one report, as JSON, or a copy of the folder"
    )
    command.add_argument(
        "--fingerprint", type=_fingerprint, metavar="WORDS", help="the key's fingerprint, as you noted it before"
    )
    keys = top.add_parser("keys", help="make, list, rotate and revoke keys", description="Look after keys.")
    group = keys.add_subparsers(title="commands", metavar="COMMAND", required=True)
    command = add(group, "create", key_commands.create, "make a key for somebody", _KEYS_CREATE)
    command.add_argument("--user", metavar="NAME", help="whose it is")
    command.add_argument("--team", metavar="NAME", help="on which team's account")
    command.add_argument("--name", default="", metavar="TEXT", help="what it is for")
    command.add_argument(
        "--role", choices=[role.value for role in Role], default=Role.USER.value, help="default: %(default)s"
    )
    command.add_argument("--use-case", action="append", default=[], metavar="NAME",
        help="one that it may name in X-Use-Case; again for more")  # fmt: skip
    classes = [each.value for each in ServiceClass]
    command.add_argument("--class", dest="service_class", choices=classes, default=ServiceClass.STANDARD.value,
        help="how urgent its requests are (default: %(default)s)")  # fmt: skip
    command.add_argument("--expires", type=key_commands.duration, metavar="TIME", help="in 90d, 12w, 24h or 30m")
    for name, kind in key_commands.LIMITS:
        option, unit = f"--{name.replace('_', '-')}", "EUROS" if kind is float else "NUMBER"
        command.add_argument(option, type=kind, metavar=unit, help=f"at most so many {name.replace('_', ' ')}")
    command.add_argument("--at-limit", choices=("reject", "step_down", "warn"),
        help="what follows when a day or a month is used up (default: reject)")  # fmt: skip
    command.add_argument("--step-down-to", metavar="MODEL", help="with --at-limit step_down")
    command = add(group, "list", key_commands.list_, "list the keys", (
        "List all keys: whose they are and what they may, never what opens.\n\n"
        "  appliance keys list\n  appliance keys list --team sales --json"
    ))  # fmt: skip
    command.add_argument("--user", metavar="NAME", help="only this user's")
    command.add_argument("--team", metavar="NAME", help="only this team's")
    command = add(group, "rotate", key_commands.rotate, "replace a key", _KEYS_ROTATE)
    command.add_argument("id", metavar="ID", help="as appliance keys list shows it")
    command.add_argument("--overlap", type=key_commands.duration, default=86_400.0, metavar="TIME",
        help="how long the old key opens, too (default: 24h)")  # fmt: skip
    command.add_argument("--expires", type=key_commands.duration, metavar="TIME",
        help="when the new key ends (default: when the old one would have)")  # fmt: skip
    command = add(group, "revoke", key_commands.revoke, "refuse a key from now on", _KEYS_REVOKE)
    command.add_argument("id", metavar="ID", help="as appliance keys list shows it")
    command = add(top, "usage", usage_command.usage, "show who used how much", (
        "Show what was used in a month: requests, tokens, euros, and the share of budgets. Reads the store, so it\n"
        "works while the appliance runs, and when it doesn't.\n\n"
        "  appliance usage\n  appliance usage --month 2026-11 --by user\n  appliance usage --by team,model --csv"
    ), script=False)  # fmt: skip
    command.add_argument("--month", type=usage_command.month, metavar="MONTH", help="such as 2026-11 (default: this)")
    command.add_argument("--by", type=usage_command.by, default="team", metavar="WHAT",
        help="key, user, team, use_case, model, day or month; several with commas (default: %(default)s)")  # fmt: skip
    form = command.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print CSV, for spreadsheets")
    form.add_argument("--json", action="store_true", help="print JSON, for scripts")
    models = top.add_parser("models", help="list and prepare models", description="Look after models.")
    group = models.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add(group, "list", commands.models_list, "list the models that have a card", (
        "List the cards under the models folder: what each is, whether its weights are prepared, who serves it."
    ))  # fmt: skip
    command = add(group, "prepare", commands.models_prepare, "fetch and convert the weights of a model", (
        "Bring the weights that a card describes, check their checksums, quantize them where the card says so,\n"
        "and put them beside the card. What is already there is left alone; a failure leaves nothing half done."
    ))  # fmt: skip
    command.add_argument("names", nargs="+", metavar="NAME", help="folder under models/")
    command = add(top, "bundle", commands.bundle, "collect all that a machine without a network needs", (
        "Collect this checkout, every package that it is locked to, and prepared models into one folder with\n"
        "checksums and a bill of materials. On the other machine, in that folder: make install-offline.\n"
        "A run that failed is taken up again by the same command."
    ))  # fmt: skip
    command.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where to; not there yet")
    command.add_argument("--device", choices=("cpu", "cuda"), default="cpu",
        help="what the other machine serves on (default: %(default)s)")  # fmt: skip
    command.add_argument("--models", nargs="+", default=[], metavar="NAME",
        help="folders under models/ (default: those that the config names)")  # fmt: skip
    command.add_argument("--without", action="append", choices=("tests", "preparation"), default=[],
        help="leave out what `make test` and `make bench` need, or what `models prepare` needs")  # fmt: skip
    command.add_argument("--tar", action="store_true", help="also write FOLDER.tar, one file to carry")
    return root


if __name__ == "__main__":
    sys.exit(main())
