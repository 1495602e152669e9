"""Makes a new model out of a checkpoint in a folder, on a mirror or on a hub: fetched, checked, with a card."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from appliance.errors import CardInvalid, PreparationFailed
from appliance.weights import describe, hub, manifest, mirror
from appliance.weights.admission import admitted, belongs, look_into
from appliance.weights.card import Hub, Mirror, Source, load_card
from appliance.weights.outside import Ask, refuse_outside
from appliance.weights.prepare import DOWNLOAD, fill, take
from appliance.weights.staging import Progress, Stage, stage

ENDPOINT = "https://huggingface.co"
INCOMING = "incoming"
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_GIB = 2**30
_DEVICES: Mapping[str, list[str]] = {"fp8": ["cuda"]}
_CAPABILITY = {"fp8": 8.9, "bfloat16": 8.0}
_LEAST_CAPABILITY = 7.5


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants to have added. What of it is None is read from the checkpoint."""

    source: str
    """A folder, an `owner/name` on a hub, or the URL of a mirror."""
    revision: str = "main"
    endpoint: str = ENDPOINT
    licence: str | None = None
    task: str | None = None
    context_length: int | None = None
    languages: tuple[str, ...] = ()


@dataclass(slots=True)
class _Found:
    """Where the files of a checkpoint are, and what is known of them before they are here."""

    source: dict[str, Any]
    folder: Path
    title: str
    said: dict[str, Any] = field(default_factory=dict)
    sums: Mapping[str, str] = field(default_factory=dict)
    held: hub.Repository | None = None


def kind(source: str) -> str:
    """What `Wish.source` is: `folder`, `mirror` or `hub`. Raises `PreparationFailed` for anything else."""
    if Path(source).expanduser().is_dir():
        return "folder"
    if source.startswith(("http://", "https://")):
        return "hub" if source.startswith(f"{ENDPOINT}/") else "mirror"
    if _REPO.fullmatch(source):
        return "hub"
    raise PreparationFailed(
        f"{source[:200]!r} is no folder that is here, no `owner/name` of a hub and no URL. Name one of the three."
    )


def name_for(source: str) -> str:
    """A name for the model that `source` leads to: the last part of it, as the names of models are written."""
    last = Path(urlsplit(source).path.rstrip("/")).name or "model"
    return re.sub(r"[^a-z0-9._-]+", "-", last.lower()).strip("-._")[:64] or "model"


def add(
    wish: Wish,
    name: str,
    models: Path,
    environment: Path,
    progress: Progress,
    *,
    ask: Ask = refuse_outside,
    record: Callable[[str, Path], None] = lambda *_: None,
) -> Path:
    """Add the model `name`; returns its folder, prepared.

    `ask` is told a host before that is asked, and `record` card and weights just before the model stands in its place;
    if either raises, nothing is done. What has arrived of a download that failed or was killed is used by the next try.
    Raises `PreparationFailed` saying what to do.
    """
    if kind(wish.source) == "hub":
        wish = replace(wish, source=wish.source.removeprefix(f"{ENDPOINT}/").rstrip("/"))
        if not _REPO.fullmatch(wish.source):
            raise PreparationFailed(f"{wish.source[:200]!r} isn't the `owner/name` of a repository.")
    with stage(models, name, progress) as made:
        for left in made.folder.iterdir():  # what a killed run left, but for its download
            if left.name != DOWNLOAD:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        found = _find(wish, made, environment, progress, ask)
        plain = _card(wish, found)
        _write(made, plain, wish)
        found = _bring(wish, found, made, environment, progress)
        plain |= {"checksums": dict(found.sums), "hardware": _hardware(plain, found.folder)}
        _write(made, plain, wish)
        fill(made.folder, made.home, environment, progress, ask=lambda _: None)
        record(name, made.folder / "weights")
        return made.finish()


def _find(wish: Wish, made: Stage, environment: Path, progress: Progress, ask: Ask) -> _Found:
    """Have all but the weights themselves here, by which a card can be made."""
    into, what = made.folder / DOWNLOAD, kind(wish.source)
    if what == "folder":
        folder = Path(wish.source).expanduser().absolute()
        admitted(folder)
        return _Found({"folder": INCOMING}, folder, folder.name, describe.facts(folder))
    source = _fetched_from(wish, what)
    ask(wish.endpoint if what == "hub" else wish.source)
    made.kept = True
    if source.mirror is not None:
        listed = mirror.download(source.mirror, into, progress, wanted=_small)
        given: dict[str, Any] = {"mirror": {"url": source.mirror.url, "sha256sums": listed.sha256sums}}
        found = _Found(given, into, name_for(wish.source), {}, listed.sums)
    else:
        held = hub.look(wish.source, wish.revision, wish.endpoint, environment, progress)
        for left in held.left_out:
            if left.endswith((".bin", ".py", ".pt", ".pth", ".pkl")):
                progress(f"left on the hub, since loading it could run code: {left[:100]}")
        pinned = Hub(repo=wish.source, revision=held.commit, endpoint=wish.endpoint)
        hub.fetch(pinned, into, environment, progress, wanted=_small, held=held)
        told = {"licence": describe.spdx(held.licence), "languages": describe.languages(held.languages)}
        said = {name: value for name, value in told.items() if value}
        given = {"hub": pinned.model_dump(mode="json", exclude_defaults=True)}
        found = _Found(given, into, wish.source, said, held=held)
    made.kept = False
    look_into(into, [file.relative_to(into).as_posix() for file in into.rglob("*") if file.is_file()])
    found.said = describe.facts(into) | found.said
    return found


def _fetched_from(wish: Wish, what: str) -> Source:
    try:
        if what == "mirror":
            return Source(mirror=Mirror(url=wish.source, sha256sums=None))
        unknown = wish.revision if _COMMIT.fullmatch(wish.revision) else "0" * 40
        return Source(hub=Hub(repo=wish.source, revision=unknown, endpoint=wish.endpoint))
    except ValueError as cause:
        host = urlsplit(wish.source if what == "mirror" else wish.endpoint).hostname
        raise PreparationFailed(
            f"The address at {host} can't be fetched from. It is `http(s)://HOST/PATH`, with no login and no query."
        ) from cause


def _small(name: str) -> bool:
    return not name.endswith(".safetensors")


def _bring(wish: Wish, found: _Found, made: Stage, environment: Path, progress: Progress) -> _Found:
    """Have all of the checkpoint here, checked, and its checksums known."""
    source = Source.model_validate(found.source)
    if source.folder is not None:
        names = [name for name in admitted(found.folder) if name != manifest.NAME]
        progress(f"taking over {found.folder.name}")
        (made.folder / INCOMING).mkdir()
        take(found.folder, names, made.folder / INCOMING, linked=True)
        found.sums = {name: manifest.sha256(made.folder / INCOMING / name) for name in names}
        found.folder = made.folder / INCOMING
        return found
    made.kept = True
    if source.mirror is not None:
        mirror.download(source.mirror, found.folder, progress)
    elif source.hub is not None:
        found.sums = hub.fetch(source.hub, found.folder, environment, progress, held=found.held)
    made.kept = False
    found.sums = {name: digest for name, digest in found.sums.items() if belongs(name)}
    return found


def _card(wish: Wish, found: _Found) -> dict[str, Any]:
    """A card as plain data; raises `PreparationFailed` naming the option that says what can't be read."""
    said = found.said | {
        name: value
        for name, value in (
            ("licence", wish.licence),
            ("task", wish.task),
            ("context_length", wish.context_length),
            ("languages", list(wish.languages)),
        )
        if value
    }
    for needed, option, what in (
        ("licence", "--licence", "under which licence it may be used (read it first; SPDX, such as Apache-2.0)"),
        ("task", "--task", "what it is asked for: chat, embedding or rerank"),
        ("context_length", "--context-length", "how many tokens it reads at most"),
    ):
        if needed not in said:
            raise PreparationFailed(f"The checkpoint doesn't tell {what}. Say it with {option}.")
    limits = ["It was taken over as it is, and nobody here has measured it yet: `appliance eval` does."]
    if said["task"] == "chat" and not said["has_template"]:
        limits.append("It has no chat template, so it can't be asked in turns: it only goes on with texts.")
    return {
        "title": found.title,
        "description": f"Added from {wish.source}. Describe here in a sentence what it is, and from whom.",
        "task": said["task"],
        "source": found.source,
        "licence": said["licence"],
        "quantization": said["quantization"],
        "dtype": said["dtype"],
        "context_length": said["context_length"],
        "languages": said.get("languages", ["und"]),
        **({"chat": said["chat"]} if said["task"] == "chat" and "chat" in said else {}),
        "hardware": {"devices": ["cpu"], "memory_gib": 1},
        "intended_use": "Not decided yet. Write here what your house uses it for; the report for auditors prints it.",
        "limits": limits,
    }


def _hardware(card: Mapping[str, Any], checkpoint: Path) -> dict[str, Any]:
    """What a machine needs, from the size of the weights."""
    size = sum(file.stat().st_size for file in checkpoint.rglob("*.safetensors")) / _GIB
    return {
        "devices": _DEVICES.get(card["quantization"], ["cpu", "cuda"]),
        "memory_gib": round(max(2.5, size * 1.2 + 4), 1),
        "gpu_memory_gib": math.ceil(size * 1.2 + 1),
        "compute_capability": max(
            _CAPABILITY.get(each, _LEAST_CAPABILITY) for each in (card["quantization"], card["dtype"])
        ),
    }


def _write(made: Stage, plain: Mapping[str, Any], wish: Wish) -> None:
    made.write_card(
        f"Made by `appliance models add {wish.source}`. What is here was read from the checkpoint: see whether it is\n"
        "right, and say in your own words what the model is, and what it may and may not be used for. For a model\n"
        "that calls tools or thinks first, vLLM's name of its parser belongs here: `chat: {tool_call_parser: hermes}`.",
        plain,
    )
    try:
        load_card(made.folder)
    except CardInvalid as cause:
        problems = "; ".join(f"{each.where}: {each.what}" for each in cause.problems)
        raise PreparationFailed(f"No right card can be made of it: {problems}.") from cause
