"""Data flows: every place that the config names outward is in the record, whoever adds it."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from appliance import config
from appliance.compliance import flows
from appliance.compliance.collect import Facts
from appliance.compliance.compose import compose
from appliance.compliance.flows import Where, destinations
from appliance.compliance.words import Language, Words
from appliance.config import Config, Section, Settings
from tests.compliance import sample
from tests.compliance.text import plain
from tests.fakes.house import House

EVERYTHING: dict[str, Any] = {
    "egress": {"mode": "anonymized", "providers": {"mistral": {"url": "https://api.mistral.ai/v1"}}},
    "accounts": {
        **sample.SETTINGS["accounts"],
        "store": {
            "postgresql": {"host": "db.example.internal", "database": "books", "user": "appliance"},
            "pepper": "env.PEPPER",
        },
    },
}


@pytest.fixture
def whole(house: House) -> Config:
    """A config with every destination that there can be."""
    return sample.config_of(house, **EVERYTHING)


def test_every_destination_of_the_config_belongs_to_a_flow(whole: Config) -> None:
    told = flows.flows(whole)
    accounted = {name for flow in told for name in flow.settings}
    named = dict(destinations(whole.settings))
    assert named.keys() - accounted == set()
    assert {flow.kind for flow in told} == set(flows._ORDER)
    for name in (
        "models.archiv.endpoint", "egress.providers.mistral.url", "accounts.store.postgresql.host",
        "accounts.identity.keys_url", "audit.timestamps.url", "audit.shipping.endpoint", "listen.host", "state",
    ):  # fmt: skip
        place = next(flow.place for flow in told if name in flow.settings)
        assert named[name].strip("./") in place


def test_the_config_above_has_a_value_for_every_setting_that_could_be_a_destination(whole: Config) -> None:
    there = {type(section) for _, section in flows.walk(whole.settings)}
    for section in sections(Settings):
        outward = [
            name
            for name, field in section.model_fields.items()
            if name not in flows._INWARD and (flows._NAMED_OUTWARD.fullmatch(name) or is_path(field.annotation))
        ]
        assert section in there or not outward, f"{section.__name__}: {outward}"


def sections(section: type[Section]) -> Iterator[type[Section]]:
    yield section
    for field in section.model_fields.values():
        for each in inside(field.annotation):
            if isinstance(each, type) and issubclass(each, Section):
                yield from sections(each)


def inside(annotation: Any) -> Iterator[Any]:
    yield annotation
    for each in typing.get_args(annotation):
        yield from inside(each)


def is_path(annotation: Any) -> bool:
    return any(each is Path for each in inside(annotation))


class Mirrored(Section):
    """A section that somebody adds one day, and tells nobody."""

    copy_to: str = Field("https://elsewhere.example/v1", description="Where copies go.")
    folder: Path = Field(Path("/mnt/share"), description="Where files go.")


class Later(Settings):
    """The settings of that day."""

    mirrors: dict[str, Mirrored] = Field({"first": Mirrored()}, description="See `Mirrored`.")


def test_a_destination_that_nobody_described_is_shown_and_is_wrong(house: House, good: Facts) -> None:
    loaded = sample.config_of(house)
    later = Later.model_construct(**{name: getattr(loaded.settings, name) for name in Settings.model_fields},
                                  mirrors={"first": Mirrored()})  # fmt: skip
    told = flows.flows(replace(loaded, settings=later))
    strange = [flow for flow in told if flow.where is Where.UNKNOWN]
    assert [(flow.name, flow.place) for flow in strange] == [
        ("mirrors.first.copy_to", "https://elsewhere.example/v1"),
        ("mirrors.first.folder", "/mnt/share"),
    ]
    for language in Language:
        words = Words(language, good.month.zone)
        text = plain(compose(replace(good, flows=told), words))
        assert "https://elsewhere.example/v1" in text
        assert words("wrong.flows", count=2) in text


def test_what_leaves_the_machine_is_told_apart_from_what_stays(house: House) -> None:
    house.card("tiny")
    house.serve("chat", "tiny")
    alone = flows.flows(config.load(house.write()))
    assert {flow.kind for flow in alone if flow.where is not Where.HERE} == {"metrics"}
    assert "content" not in {flow.kind for flow in alone}


def test_where_it_goes_in_clear_text_is_said(whole: Config) -> None:
    told = {flow.kind: flow for flow in flows.flows(whole)}
    assert "clear" in told["timestamps"].protection
    assert "tls" in told["shipping"].protection
    assert told["provider"].where is Where.OUTSIDE
    assert told["content"].name == "reklamation"
    assert "tls" in told["gateway"].protection


@pytest.mark.parametrize(
    ("listen", "place", "protection"),
    [
        ({"port": 8000}, "http://127.0.0.1:8000", "loopback"),
        ({"host": "::1", "port": 8000}, "http://[::1]:8000", "loopback"),
        ({"host": "0.0.0.0", "port": 8000, "behind_proxy": True}, "http://0.0.0.0:8000", "proxy"),  # noqa: S104
        ({"socket": "/run/appliance/api.sock"}, "unix:/run/appliance/api.sock", "socket"),
    ],
)
def test_where_it_listens_is_told(house: House, listen: dict[str, Any], place: str, protection: str) -> None:
    house.card("tiny")
    house.serve("chat", "tiny")
    gateway = flows.flows(config.load(house.write(listen=listen)))[0]
    assert (gateway.kind, gateway.place, gateway.protection[0]) == ("gateway", place, protection)
