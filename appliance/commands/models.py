"""`appliance models ...` and `bundle`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.commands import FAILED, OK, write

if TYPE_CHECKING:
    from appliance.config import Config
    from appliance.console import Progress


def list_(options: argparse.Namespace) -> int:
    """List the cards."""
    from appliance import config
    from appliance.errors import Invalid
    from appliance.weights.card import load_card

    loaded = config.load(options.config)
    served: dict[str, list[str]] = {}
    for name, model in loaded.settings.models.items():
        if model.kind == "card":
            served.setdefault(model.card, []).append(name)
    rows: list[dict[str, Any]] = []
    broken: list[str] = []
    for file in sorted(loaded.models_folder.glob("*/card.yaml")):
        try:
            card = load_card(file.parent)
        except Invalid as problem:
            broken.append(str(problem))
            continue
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
                "adapters": sorted(each.parent.name for each in file.parent.glob("adapters/[!.]*/manifest.json")),
                "served_as": served.get(file.parent.name, []),
            }
        )
    for why in broken:
        sys.stderr.write(f"{why}\n")
    if options.json:
        write(json.dumps(rows, indent=1))
        return FAILED if broken else OK
    for row in rows:
        state = "prepared" if row["prepared"] else "to prepare"
        names = f"served as {', '.join(row['served_as'])}" if row["served_as"] else ""
        names += f"  adapters: {', '.join(row['adapters'])}" if row["adapters"] else ""
        write(
            f"{row['name']:<22} {row['task']:<10} {row['quantization']:<18} {row['context_length']:>7} tokens  "
            f"{'+'.join(row['devices']):<9} {state:<11} {names}"
        )
    return FAILED if broken else OK


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
        folder = prepare(name, loaded.models_folder, environment, show.say, ask=_asking(loaded, options, name))
        show.done(f"{name} is prepared")
        if options.json:
            write(json.dumps({"name": name, "weights": str(folder)}))
    return OK


def quantize(options: argparse.Namespace) -> int:
    """Make a new model: another's weights in another number format."""
    from appliance import config
    from appliance.console import Progress
    from appliance.weights.quantize import name_for, quantize

    loaded = config.load(options.config)
    show = Progress()
    name = options.as_ or name_for(options.name, options.to)
    folder = quantize(
        options.name,
        options.to,
        name,
        loaded.models_folder,
        loaded.path(loaded.settings.engines.preparation_environment),
        show.say,
        texts=options.calibration,
        ask=_asking(loaded, options, name),
        record=_putting_in_place(loaded, "quantize", f"models/{options.name}"),
    )
    return _standing(options, show, folder)


def add(options: argparse.Namespace) -> int:
    """Add a model, or an adapter beside one."""
    from appliance import config
    from appliance.console import Progress
    from appliance.weights.add import Wish, add, name_for

    loaded = config.load(options.config)
    show = Progress()
    name = options.as_ or name_for(options.source)
    if options.adapter_of:
        return _add_adapter(options, loaded, name)
    folder = add(
        Wish(
            options.source,
            options.revision,
            options.endpoint,
            options.licence,
            options.task,
            options.context_length,
            tuple(options.languages),
        ),
        name,
        loaded.models_folder,
        loaded.path(loaded.settings.engines.preparation_environment),
        show.say,
        ask=_asking(loaded, options, name),
        record=_putting_in_place(loaded, "add", options.source),
    )
    return _standing(options, show, folder)


def _add_adapter(options: argparse.Namespace, loaded: Config, name: str) -> int:
    from appliance.acts import on_record
    from appliance.weights.adapters import add

    def record(fingerprint: str) -> None:
        on_record(
            loaded, "models.add", lambda _: None,
            model=options.adapter_of, adapter=name, how="add", source=options.source, weights=fingerprint,
        )  # fmt: skip

    made = add(Path(options.source), loaded.models_folder, options.adapter_of, name, record)
    if options.json:
        told = {"name": name, "adapter_of": options.adapter_of, "rank": made.rank, "folder": str(made.folder)}
        write(json.dumps(told))
    else:
        write(
            f"  ✓ {name}, rank {made.rank}, lies beside {options.adapter_of}.\n"
            f"    Serve it by a name of its own: `adapters: {{NAME: {name}}}` under the model in the config, then\n"
            "    `appliance apply`."
        )
    return OK


def _asking(loaded: Config, options: argparse.Namespace, name: str) -> Callable[[str], None]:
    """Lets a host be asked for weights: one of the house always, one outside if this machine may, and on record."""
    from appliance.acts import on_record
    from appliance.weights import outside

    mode = loaded.settings.egress.mode

    def ask(url: str) -> None:
        if outside.is_private(url):
            return
        if mode == "deny" and not options.this_machine_may_fetch:
            outside.refuse_outside(url)
        on_record(loaded, "models.fetch", lambda _: None, model=name, url=url, egress=mode)

    return ask


def _putting_in_place(loaded: Config, how: str, source: str) -> Callable[[str, Path], None]:
    """Puts on record that a model is added, which is then done by a rename.

    Only that, and not the hours that a download takes: while no appliance runs, the log is open in this process, and
    none could be started.
    """
    from appliance.acts import on_record
    from appliance.weights.card import load_card
    from appliance.weights.manifest import vouch

    def record(name: str, weights: Path) -> None:
        card = load_card(weights.parent)
        on_record(
            loaded, "models.add", lambda _: None,
            model=name, how=how, source=source, licence=card.licence, weights=vouch(weights, card),
        )  # fmt: skip

    return record


def _standing(options: argparse.Namespace, show: Progress, folder: Path) -> int:
    """Say what stands there now, and what comes next."""
    size = sum(file.stat().st_size for file in (folder / "weights").rglob("*") if file.is_file())
    show.done(f"{folder.name} is prepared, {size / 1e6:.0f} MB")
    if options.json:
        write(json.dumps({"name": folder.name, "folder": str(folder), "bytes": size}))
        return OK
    write(
        f"    Read {folder / 'card.yaml'}, and mend what it says.\n"
        f"    Then write `card: {folder.name}` into the config, and `appliance plan` says what that would change."
    )
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
