"""`appliance serve`, `apply`, `rollback`, `versions`, `check-config`, `status` and `egress ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from appliance.commands import applying, egress, plan, running
from appliance.grammar.command import add, count, fingerprint, page

_DRY_RUN = "only show what would change, and why it can't; exit status 2 where it can't"


def add_to(top: Any) -> None:
    """Add the commands."""
    add(top, "serve", running.serve, "run the appliance", (
        "Start the engines of the config, seal this process off the network, and serve until SIGTERM or Ctrl-C.\n"
        "Prints the address and, at the first start, a key. Logs go to the state folder."
    ), script=False)  # fmt: skip
    command = add(top, "apply", applying.apply, "put the edited config into effect while people work", (
        "Tell the running appliance to read its config again. First it shows what would change, then it does it:\n"
        "new engines start, and when all have answered and passed their gate, the names move over and the old\n"
        "engines finish their requests. If anything is wrong, nothing changes and this says why. It goes on when\n"
        "this terminal is closed."
    ))  # fmt: skip
    command.add_argument("--dry-run", action="store_true", help=_DRY_RUN)
    command = add(top, "rollback", applying.rollback, "return to a config that was in effect before", (
        "Put the text of an earlier version back into the config file, and apply it. Without a number: the version\n"
        "before the one in effect, so that giving it twice undoes it. Edits in the file that were never applied are\n"
        "saved beside it as NAME.before-rollback. If the version can't be applied, since its card or its weights are\n"
        "gone, say, the file is put back as it was and nothing changes. Where no appliance runs, only the file does."
    ))  # fmt: skip
    command.add_argument("version", nargs="?", type=count, metavar="VERSION", help="which: see `appliance versions`")
    command.add_argument("--dry-run", action="store_true", help=_DRY_RUN)
    add(top, "versions", applying.versions, "list the configs that were in effect", (
        "Each config that was in effect, with its number, when it came into effect, who had it applied, what that\n"
        "changed, and which one is in effect now. They lie in the folder `configs` of the state folder, as they were."
    ))  # fmt: skip
    add(top, "check-config", running.check_config, "say whether the config is right", (
        "Read the config and the cards it names; report every mistake with its line. Changes nothing."
    ))  # fmt: skip
    add(top, "plan", plan.plan, "say what fits into this host's memory", (
        "Reckon what each model of the config needs, show it beside what this host has, and say what to change if it\n"
        "doesn't fit. Tells as well which other cards would fit, besides or in the place of what is served. Starts\n"
        "nothing, and works with and without a running appliance. Exit status 1 if the config doesn't fit."
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
