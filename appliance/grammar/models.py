"""`appliance models ...` and `bundle`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from appliance.commands import models
from appliance.grammar.command import add


def add_to(top: Any) -> None:
    """Add the commands."""
    cards = top.add_parser("models", help="list and prepare models", description="Look after models.")
    group = cards.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add(group, "list", models.list_, "list the models that have a card", (
        "List the cards under the models folder: what each is, whether its weights are prepared, who serves it."
    ))  # fmt: skip
    command = add(group, "prepare", models.prepare, "fetch and convert the weights of a model", (
        "Bring the weights that a card describes, check their checksums, quantize them where the card says so,\n"
        "and put them beside the card. What is already there is left alone; a failure leaves nothing half done."
    ))  # fmt: skip
    command.add_argument("names", nargs="+", metavar="NAME", help="folder under models/")
    command = add(top, "bundle", models.bundle, "collect all that a machine without a network needs", (
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
