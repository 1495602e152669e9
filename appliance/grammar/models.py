"""`appliance models ...` and `bundle`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from appliance.commands import models
from appliance.grammar.command import add


def add_to(top: Any) -> None:
    """Add the commands."""
    cards = top.add_parser("models", help="list, add, quantize and prepare models", description="Look after models.")
    group = cards.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add(group, "list", models.list_, "list the models that have a card", (
        "List the cards under the models folder: what each is, whether its weights are prepared, who serves it."
    ))  # fmt: skip
    command = add(group, "prepare", models.prepare, "fetch and convert the weights of a model", (
        "Bring the weights that a card describes, check their checksums, quantize them where the card says so,\n"
        "and put them beside the card. What is already there is left alone; a failure leaves nothing half done."
    ))  # fmt: skip
    command.add_argument("names", nargs="+", metavar="NAME", help="folder under models/")
    _may_fetch(command)
    command = add(group, "quantize", models.quantize, "make a smaller or faster form of a model", (
        "Make a new model out of one that isn't quantized: the same weights in another number format, with a card of\n"
        "its own, so that both can be compared (`appliance eval`) and swapped.\n\n"
        "  bnb-4bit  a quarter of the size, rounded while it is loaded; slow without a GPU\n"
        "  int8      half the size; the fastest without a GPU\n"
        "  w4a16     a quarter, rounded without looking at any text\n"
        "  awq       a quarter, with texts that tell which numbers matter most\n"
        "  gptq      a quarter, with texts by which each rounding makes up for the one before it; takes longest\n"
        "  fp8       half the size; served only by GPUs that have it (compute capability 8.9)\n\n"
        "Memory and disk that it takes are looked at first. What fails or is killed leaves no model behind."
    ))  # fmt: skip
    command.add_argument("name", metavar="NAME", help="folder under models/, of a model that isn't quantized")
    command.add_argument("--to", required=True, choices=("bnb-4bit", "int8", "w4a16", "awq", "gptq", "fp8"),
        help="the number format")  # fmt: skip
    command.add_argument("--as", dest="as_", metavar="NEWNAME",
        help="the new model's name (default: NAME with its word for the format replaced)")  # fmt: skip
    command.add_argument("--calibration", type=Path, metavar="FILE",
        help="for awq and gptq: texts like those that it will be used for, as JSON lines with `text` or as plain text "
        "(default: texts of the appliance's own, German and English)")  # fmt: skip
    _may_fetch(command)
    command = add(group, "add", models.add, "add a model, or an adapter, that isn't here yet", (
        "Add a model from a folder, a mirror on your network, or a hub: its files are fetched, going on where an\n"
        "earlier try ended, and checked by length and SHA-256; no pickles and no code are let in. A card is made of\n"
        "what the checkpoint says of itself; read it, and mend it. Or, with --adapter-of, put a LoRA adapter beside\n"
        "the weights it was made for.\n\n"
        "Where the config says `egress: deny`, nothing is asked of a host outside. Then add the model on a machine\n"
        "that may, and bring its folder, or an `appliance bundle`. For a model that its owner shows to some only, set\n"
        "HF_TOKEN."
    ))  # fmt: skip
    command.add_argument("source", metavar="SOURCE",
        help="a folder; the URL of a mirror with a file SHA256SUMS; or OWNER/NAME on a hub")  # fmt: skip
    command.add_argument("--as", dest="as_", metavar="NAME", help="its name here (default: the last part of SOURCE)")
    command.add_argument("--licence", metavar="SPDX", help="its licence, if the checkpoint doesn't tell")
    command.add_argument("--task", choices=("chat", "embedding", "rerank"), help="what it does, if it doesn't tell")
    command.add_argument("--context-length", type=int, metavar="TOKENS", help="what it reads, if it doesn't tell")
    command.add_argument("--languages", nargs="+", default=[], metavar="TAG", help="such as: de en")
    command.add_argument("--revision", default="main", metavar="COMMIT",
        help="commit, tag or branch on the hub; the card will hold the commit (default: %(default)s)")  # fmt: skip
    command.add_argument("--endpoint", default=os.environ.get("HF_ENDPOINT", "https://huggingface.co"), metavar="URL",
        help="the hub (default: HF_ENDPOINT, or https://huggingface.co)")  # fmt: skip
    command.add_argument("--adapter-of", metavar="CARD", help="SOURCE is a folder with a LoRA adapter of this model")
    _may_fetch(command)
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
    command.add_argument("--without", action="append", choices=("tests", "preparation", "evaluation"), default=[],
        help="leave out what `make test` and `make bench`, what `models prepare`, or what `eval` needs")  # fmt: skip
    command.add_argument("--tar", action="store_true", help="also write FOLDER.tar, one file to carry")


def _may_fetch(command: Any) -> None:
    command.add_argument("--this-machine-may-fetch", action="store_true",
        help="ask hosts outside for weights although the config says `egress: deny`; put on record")  # fmt: skip
