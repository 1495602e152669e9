"""`appliance serve`, `apply`, `check-config`, `status` and `egress ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from appliance.commands import egress, running
from appliance.grammar.command import add, fingerprint, page


def add_to(top: Any) -> None:
    """Add the commands."""
    add(top, "serve", running.serve, "run the appliance", (
        "Start the engines of the config, seal this process off the network, and serve until SIGTERM or Ctrl-C.\n"
        "Prints the address and, at the first start, a key. Logs go to the state folder."
    ), script=False)  # fmt: skip
    add(top, "apply", running.apply, "put the edited config into effect while people work", (
        "Tell the running appliance to read its config again. New engines start beside the old ones; when all\n"
        "have answered, the names move over and the old engines finish their requests. If anything is wrong,\n"
        "nothing changes and this says why."
    ))  # fmt: skip
    add(top, "check-config", running.check_config, "say whether the config is right", (
        "Read the config and the cards it names; report every mistake with its line. Changes nothing."
    ))  # fmt: skip
    add(top, "status", running.status, "show what runs and whether it is well", (
        "Show the state of each model and of the seal. Exit status 0 only when every model can answer, and requests\n"
        "are not refused for want of a proof."
    ))  # fmt: skip
    proof = top.add_parser("egress", help="prove that nothing leaves", description="Prove that nothing leaves.")
    group = proof.add_subparsers(title="commands", metavar="COMMAND", required=True)
    command = add(group, "verify", egress.verify, "prove it now, on the running appliance", (
        "Look at every process, thread and open socket of the running appliance, try every known way out from\n"
        "inside each seal and beside it without one, and write a signed report. Run it as the appliance's own user\n"
        "or as root. Takes a few seconds. Exit status 0 only when everything holds; 1 also when the appliance runs\n"
        "but doesn't answer, or the report can't be kept."
    ))  # fmt: skip
    command.add_argument("--html", type=page, metavar="FILE", help="also write the report as a page to print")
    command = add(group, "report", egress.report, "show a report that was written before", (
        "Show the newest report, or the one with that number."
    ))  # fmt: skip
    command.add_argument("number", nargs="?", type=int, metavar="NUMBER", help="which (default: the newest)")
    command.add_argument("--html", type=page, metavar="FILE", help="also write it as a page to print")
    command = add(group, "check", egress.check, "check that reports are genuine and complete", (
        "Check signatures and the chain of all reports of this appliance, or of a copy of its folder `egress`: tells\n"
        "what was changed, removed or put in. Of one report in a file it tells whether it is genuine, and what it says."
    ))  # fmt: skip
    command.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="one report, as JSON, or a copy of the folder"
    )
    command.add_argument(
        "--fingerprint", type=fingerprint, metavar="WORDS", help="the key's fingerprint, as you noted it before"
    )
