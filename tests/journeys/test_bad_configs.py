"""Whatever somebody writes into the config by mistake is refused by the name of the field, and nobody notices else."""

from __future__ import annotations

import copy
import json
import pickle
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import httpx
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance import config as configuration
from appliance.config import LocalModel, Section, Settings
from appliance.errors import ConfigInvalid
from appliance.strict_yaml import dotted
from appliance.weights import manifest
from appliance.weights.card import load_card
from tests.fakes import house as houses
from tests.fakes.house import House, Running, safetensors, until

Tree = dict[str, Any]
Mistake = tuple[bytes, str]
"""A config, and what its refusal has to say."""
NEW_CARDS = {
    "unprepared": "isn't prepared", "changed": "its checksum differs", "pickled": "is a pickle",
    "no-tokenizer": "holds no tokenizer", "with-code": "is no file of a model", "lost": "is missing",
    "nowhere": "there is no model 'nowhere'",
}  # fmt: skip
OUTSIDE = [
    "https://api.openai.com",
    "https://8.8.8.8/v1",
    "http://93.184.216.34",
    "http://gpu.internal/?key=x",
    "ftp://a",
]


def _sections(annotation: Any) -> Iterator[type[Section]]:
    if get_origin(annotation) in (Union, types.UnionType):
        for each in get_args(annotation):
            yield from _sections(each)
    elif isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation


def _fields(section: type[Section], at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Path and description of every setting below a section, but for those in mappings."""
    for name, field in section.model_fields.items():
        if (*at, name) == ("models",):
            continue
        yield (*at, name), field
        for inner in _sections(field.annotation):
            yield from _fields(inner, (*at, name))


FIELDS = [*_fields(Settings), *_fields(LocalModel, ("models", "chat"))]
BOUNDED = [path for path, field in FIELDS if any(hasattr(each, "ge") or hasattr(each, "gt") for each in field.metadata)]
SECTIONS = sorted({path[:-1] for path, _ in FIELDS})


def put(tree: Tree, path: tuple[str, ...], value: Any) -> Tree:
    """The config with another value in one place."""
    changed = copy.deepcopy(tree)
    inner = changed
    for part in path[:-1]:
        inner[part] = inner[part] if isinstance(inner.get(part), dict) else {}
        inner = inner[part]
    inner[path[-1]] = value
    return changed


def written(tree: Tree) -> bytes:
    return yaml.safe_dump(tree, sort_keys=False).encode()


NAMES = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=12)
WORDS = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12)


def mistakes(good: Tree) -> st.SearchStrategy[Mistake]:
    """Configs with one mistake each."""
    text = written(good)

    def of_type(path: tuple[str, ...], value: Any) -> Mistake:
        return written(put(good, path, value)), dotted(path)

    def unknown(section: tuple[str, ...], name: str) -> Mistake:
        name = f"{name}_x"  # no setting ends so
        return written(put(good, (*section, name), 1)), f"{dotted((*section, name))}: unknown setting"

    def card(name: str, public: str) -> Mistake:
        path = ("models", public, "card")
        return written(put(good, path, name)), f"{dotted(path)}: "

    def broken(junk: bytes, at: float) -> Mistake:
        lines = text.splitlines(keepends=True)
        place = int(at * len(lines))
        return b"".join([*lines[:place], junk, b"\n", *lines[place:]]), "appliance.yaml:"

    def foreign(junk: bytes, at: float) -> Mistake:
        place = int(at * len(text))
        return text[:place] + b"# " + junk + b"\n" + text[place:], "isn't UTF-8 at byte"

    def twice(name: str) -> Mistake:
        return text + f"{name}: {{}}\n".encode(), f"{name}: stands twice (first on line"

    def moved(port: int) -> Mistake:
        return written(put(good, ("listen", "port"), port)), "listen: changes only with a restart"

    def shared(name: str) -> Mistake:
        return written(put(good, ("models", "chat", "adapters"), {name: "x"})), f"{name!r} is the public name of 2"

    tree = st.sampled_from
    return st.one_of(
        st.builds(of_type, tree([path for path, _ in FIELDS]), tree([[[1]], {"a": {"b": [[]]}}])),
        st.builds(of_type, tree(BOUNDED), st.integers(-(10**12), -(10**6))),
        st.builds(unknown, tree(SECTIONS), WORDS),
        st.builds(card, tree(sorted(NEW_CARDS)), st.just("chat") | NAMES),
        st.builds(card, st.text(min_size=1, max_size=9).map(lambda name: f"../{name}"), NAMES),
        st.builds(lambda over: of_type(("models", "chat", "context_length"), over), st.integers(513, 10**9)),
        st.builds(lambda url, name: of_type(("models", name), {"endpoint": url}), tree(OUTSIDE), NAMES),
        st.builds(shared, tree(["chat", "other"])),
        st.builds(
            broken, tree([b"\t- [", b"a: b: c", b"}", b"%x", b'"', b"- 1", b"&a *a", b"!!python/x {}"]), st.floats(0, 1)
        ),
        st.builds(foreign, st.binary(min_size=1, max_size=8).filter(_no_text), st.floats(0, 1)),
        st.builds(twice, tree(sorted(good))),
        st.builds(lambda size: (text + b"#" * size, "is over 1000000 bytes"), st.integers(10**6, 3 * 10**6)),
        st.builds(moved, st.integers(1, 65535)),
    ).filter(lambda mistake: _is_one(*mistake))


def _no_text(junk: bytes) -> bool:
    try:
        junk.decode()
    except UnicodeDecodeError:
        return True
    return False


def _is_one(text: bytes, says: str) -> bool:
    """Whether a broken text is really broken; what else is wrong, is wrong by its making."""
    if says != "appliance.yaml:":
        return True
    try:
        configuration.of(Path("/x/appliance.yaml"), text)
    except ConfigInvalid:
        return True
    return False


class Stream:
    """An answer that goes on for as long as the test does."""

    def __init__(self, running: Running) -> None:
        self.chunks = 0
        self.failure: str | None = None
        self._running = running
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        until(lambda: self.chunks)

    def _read(self) -> None:
        body = {"model": "chat", "stream": True, "messages": [{"role": "user", "content": "tokens=inf gap=0.02"}]}
        try:
            with self._running.client() as client, client.stream("POST", "/v1/chat/completions", json=body) as answer:
                for line in answer.iter_lines():
                    if self._over.is_set():
                        return
                    if line.startswith("data: "):
                        assert "error" not in json.loads(line[6:]), line
                        self.chunks += 1
            self.failure = "it ended"
        except (httpx.HTTPError, AssertionError, ValueError) as cause:
            self.failure = repr(cause)

    def end(self) -> None:
        """Stop reading."""
        self._over.set()
        self._thread.join()


def _cards(house: House) -> None:
    """Cards that can't be served, each for a reason of its own."""
    for name in NEW_CARDS:
        if name != "nowhere":
            house.card(name)
    weights = {name: house.folder / "models" / name / "weights" for name in NEW_CARDS}
    (weights["unprepared"] / "manifest.json").unlink()
    (weights["changed"] / "model.safetensors").write_bytes(safetensors(b"other"))
    (weights["lost"] / "model.safetensors").unlink()
    (weights["pickled"] / "model.safetensors").write_bytes(pickle.dumps([1]))
    (weights["no-tokenizer"] / "tokenizer.json").unlink()
    (weights["with-code"] / "modeling.py").write_bytes(b"import os")
    for name in ("pickled", "no-tokenizer", "with-code"):
        manifest.write(weights[name], load_card(weights[name].parent), {})


@pytest.fixture(scope="module")
def steady() -> Iterator[Running]:
    """An appliance that nothing of this may disturb."""
    for house in houses.house():
        house.card("one")
        _cards(house)
        house.serve("chat", "one")
        house.serve("other", "one")
        house.write()
        running = Running(house).ready().ready("other")
        yield running
        running.stop()


def test_five_hundred_bad_configs_are_refused_by_name_and_disturb_nobody(steady: Running) -> None:
    house = steady.house
    good = copy.deepcopy(house.settings)
    before, started = steady.status(), len(house.heard("start"))
    stream, tried = Stream(steady), set()

    @settings(max_examples=500, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(mistakes(good))
    def refuse(mistake: Mistake) -> None:
        text, says = mistake
        house.config.write_bytes(text)
        refusal = steady.apply().get("error")
        tried.add(text)
        assert refusal is not None, text.decode("utf-8", "replace")
        assert says in refusal
        assert stream.failure is None

    try:
        refuse()
        assert len(tried) > 300
        seen = stream.chunks
        until(lambda: stream.chunks > seen or stream.failure)
        assert stream.failure is None
    finally:
        stream.end()
        house.write()
    after = steady.status()
    assert after["version"]["number"] == before["version"]["number"]
    assert after["version"]["unapplied"] is False
    for name, model in after["models"].items():
        assert model | {"requests": 0} == before["models"][name] | {"requests": 0}
    assert len(house.heard("start")) == started, "no engine was started for any of them"
    assert steady.apply() == {"changes": []}


@pytest.mark.parametrize(("card", "says"), sorted(NEW_CARDS.items()))
def test_weights_that_cant_be_served_are_refused_and_told_by_the_model(steady: Running, card: str, says: str) -> None:
    house = steady.house
    house.config.write_bytes(written(put(house.settings, ("models", "chat", "card"), card)))
    refusal = steady.apply()["error"]
    house.write()
    assert "models.chat.card: " in refusal
    assert says in refusal
