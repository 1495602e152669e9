"""The models that the config serves, as their cards and the records of their weights describe them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from appliance.config import Config, RemoteModel
from appliance.errors import CardInvalid, WeightsInvalid
from appliance.weights import manifest
from appliance.weights.adapters import FOLDER
from appliance.weights.card import Card, Source, load_card

WEIGHTS = 32
"""Digits of the weights' fingerprint that each record of a request tells."""


@dataclass(frozen=True, slots=True)
class Factsheet:
    """A model: by `card`, or on a server at `endpoint`; `trouble` says why neither is known."""

    name: str
    folder: str = ""
    card: Card | None = None
    source: str = ""
    context_length: int | None = None
    weights: str = ""
    """Fingerprint of all files of the weights, 64 hexadecimal digits; empty where they aren't prepared."""
    files: int = 0
    bytes: int = 0
    endpoint: str = ""
    upstream: str = ""
    trouble: str = ""
    adapters: tuple[str, ...] = ()
    """Of each LoRA adapter its public name, its folder's name, and the fingerprint of its files, where it is there."""


def factsheets(config: Config) -> list[Factsheet]:
    """One for each public name."""
    return list(_factsheets(config))


def _factsheets(config: Config) -> Iterator[Factsheet]:
    for name, model in config.settings.models.items():
        if isinstance(model, RemoteModel):
            upstream = model.upstream_model or name
            yield Factsheet(name, endpoint=model.endpoint, upstream=upstream, context_length=model.context_length)
            continue
        folder = config.models_folder / model.card
        try:
            card = load_card(folder)
        except CardInvalid as invalid:
            yield Factsheet(name, model.card, trouble=str(invalid).splitlines()[0])
            continue
        length = model.context_length or card.context_length
        try:
            record = manifest.read(folder / "weights")
        except WeightsInvalid:
            yield Factsheet(name, model.card, card, _source(card.source), length)
            continue
        fingerprint = hashlib.sha256(record.model_dump_json().encode()).hexdigest()
        size = sum(file.bytes for file in record.files.values())
        sheet = Factsheet(name, model.card, card, _source(card.source), length, fingerprint, len(record.files), size)
        yield replace(sheet, adapters=tuple(_adapters(folder, model.adapters)))


def _adapters(folder: Path, adapters: Mapping[str, str]) -> Iterator[str]:
    for public, name in adapters.items():
        try:
            record = manifest.read(folder / FOLDER / name)
        except WeightsInvalid:
            yield f"{public}: {name}"
        else:
            yield f"{public}: {name}, {hashlib.sha256(record.model_dump_json().encode()).hexdigest()}"


def _source(source: Source) -> str:
    if source.package is not None:
        return f"{source.package.requirement}: {source.package.file}"
    if source.mirror is not None:
        return source.mirror.url
    if source.hub is not None:
        return f"{source.hub.endpoint}/{source.hub.repo}, {source.hub.revision[:12]}"
    return source.folder or ""
