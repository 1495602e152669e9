"""`appliance keys ...` and `usage`."""

from __future__ import annotations

from typing import Any

from appliance.commands import keys, usage
from appliance.core import DataClass, Role, ServiceClass
from appliance.grammar.command import add

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


def add_to(top: Any) -> None:
    """Add the commands."""
    group = top.add_parser("keys", help="make, list, rotate and revoke keys", description="Look after keys.")
    group = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    command = add(group, "create", keys.create, "make a key for somebody", _KEYS_CREATE)
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
    command.add_argument("--data-class", choices=[each.value for each in DataClass],
        help="how sensitive they are at the least (default: privacy.floor of the config)")  # fmt: skip
    command.add_argument("--expires", type=keys.duration, metavar="TIME", help="in 90d, 12w, 24h or 30m")
    for name, kind in keys.LIMITS:
        option, unit = f"--{name.replace('_', '-')}", "EUROS" if kind is float else "NUMBER"
        command.add_argument(option, type=kind, metavar=unit, help=f"at most so many {name.replace('_', ' ')}")
    command.add_argument("--at-limit", choices=("reject", "step_down", "warn"),
        help="what follows when a day or a month is used up (default: reject)")  # fmt: skip
    command.add_argument("--step-down-to", metavar="MODEL", help="with --at-limit step_down")
    command = add(group, "list", keys.list_, "list the keys", (
        "List all keys: whose they are and what they may, never what opens.\n\n"
        "  appliance keys list\n  appliance keys list --team sales --json"
    ))  # fmt: skip
    command.add_argument("--user", metavar="NAME", help="only this user's")
    command.add_argument("--team", metavar="NAME", help="only this team's")
    command = add(group, "rotate", keys.rotate, "replace a key", _KEYS_ROTATE)
    command.add_argument("id", metavar="ID", help="as appliance keys list shows it")
    command.add_argument("--overlap", type=keys.duration, default=86_400.0, metavar="TIME",
        help="how long the old key opens, too (default: 24h)")  # fmt: skip
    command.add_argument("--expires", type=keys.duration, metavar="TIME",
        help="when the new key ends (default: when the old one would have)")  # fmt: skip
    command = add(group, "revoke", keys.revoke, "refuse a key from now on", _KEYS_REVOKE)
    command.add_argument("id", metavar="ID", help="as appliance keys list shows it")
    command = add(top, "usage", usage.usage, "show who used how much", (
        "Show what was used in a month: requests, tokens, euros, and the share of budgets. Reads the store, so it\n"
        "works while the appliance runs, and when it doesn't.\n\n"
        "  appliance usage\n  appliance usage --month 2026-11 --by user\n  appliance usage --by team,model --csv"
    ), script=False)  # fmt: skip
    command.add_argument("--month", type=usage.month, metavar="MONTH", help="such as 2026-11 (default: this)")
    command.add_argument("--by", type=usage.by, default="team", metavar="WHAT",
        help="key, user, team, use_case, model, day or month; several with commas (default: %(default)s)")  # fmt: skip
    form = command.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print CSV, for spreadsheets")
    form.add_argument("--json", action="store_true", help="print JSON, for scripts")
