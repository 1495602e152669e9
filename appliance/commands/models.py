"""`appliance models ...` and `bundle`."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from appliance.commands import OK, write


def list_(options: argparse.Namespace) -> int:
    """List the cards."""
    from appliance import config
    from appliance.weights.card import load_card

    loaded = config.load(options.config)
    served: dict[str, list[str]] = {}
    for name, model in loaded.settings.models.items():
        if model.kind == "card":
            served.setdefault(model.card, []).append(name)
    rows: list[dict[str, Any]] = []
    for file in sorted(loaded.models_folder.glob("*/card.yaml")):
        card = load_card(file.parent)
        rows.append(
            {
                "name": file.parent.name,
                "title": card.title,
                "task": card.task,
                "quantization": card.quantization,
                "context_length": card.context_length,
                "devices": list(card.hardware.devices),
                "licence": card.licence,
                "prepared": (file.parent / "weights" / "manifest.json").exists(),
                "served_as": served.get(file.parent.name, []),
            }
        )
    if options.json:
        write(json.dumps(rows, indent=1))
        return OK
    for row in rows:
        state = "prepared" if row["prepared"] else "to prepare"
        names = f"served as {', '.join(row['served_as'])}" if row["served_as"] else ""
        write(
            f"{row['name']:<22} {row['task']:<10} {row['quantization']:<18} {row['context_length']:>7} tokens  "
            f"{'+'.join(row['devices']):<9} {state:<11} {names}"
        )
    return OK


def prepare(options: argparse.Namespace) -> int:
    """Bring weights to where engines find them."""
    from appliance import config
    from appliance.console import Progress
    from appliance.weights.prepare import prepare

    loaded = config.load(options.config)
    show = Progress()
    environment = loaded.path(loaded.settings.engines.preparation_environment)
    for name in options.names:
        show.say(name)
        folder = prepare(name, loaded.models_folder, environment, show.say)
        show.done(f"{name} is prepared")
        if options.json:
            write(json.dumps({"name": name, "weights": str(folder)}))
    return OK


def bundle(options: argparse.Namespace) -> int:
    """Collect what a machine without a network needs."""
    from appliance import config
    from appliance.bundle import collect
    from appliance.console import Progress

    loaded = config.load(options.config)
    order = collect.Order(options.device, tuple(options.models), tuple(options.without))
    show = Progress()
    made = collect.make(order, loaded, options.output, show.say)
    tar = collect.archive(made.folder, show.say) if options.tar else None
    show.done(f"{tar or made.folder}, {made.bytes / 1e9:.1f} GB, is whole")
    if options.json:
        write(json.dumps({**asdict(made), "folder": str(made.folder), "tar": str(tar) if tar else None}))
        return OK
    write("\n".join(f"  ! {note}" for note in made.notes) + ("\n" if made.notes else "") + (
        f"  SHA256SUMS of it has the checksum\n    {made.sha256}\n"
        "  Bring that on another way than the bundle; there, `sha256sum SHA256SUMS` has to say the same.\n"
        "  Then, in the unpacked folder: make install-offline"
    ))  # fmt: skip
    return OK
