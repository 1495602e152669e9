"""What of the config goes on record when it changes: all that matters, and no secret, comment or name of a person."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from appliance.audit.hidden import Hidden
from appliance.changes import Applied, between, shown

CONFIG = """
# ask Anna before you change this
listen: {port: 8000, tls: {certificate: house.pem, key: /etc/house.key}}
egress: {mode: providers, providers: {azure: {url: "https://x.test", key: env.AZURE_KEY}}}
models: {chat: {card: tiny}}   # Anna's favourite
accounts:
  users: {anna: {tokens_per_day: 5}, "Ben Ö.": {tokens_per_day: 7}}
  teams: {anna: {weight: 2}}
  each_key: {tokens_per_day: 100}
  store: {postgresql: {host: db, database: d, user: u, password: "file:/etc/secret"}, pepper: env.PEPPER}
audit: {shipping: {endpoint: "https://c.test", key: env.SHIP}}
"""
PSEUDONYMS = {"anna": "p_1", "Ben Ö.": "p_2"}
HIDE = Hidden(b"").word


def seen(config: str) -> str:
    return shown(config.encode(), PSEUDONYMS.__getitem__, HIDE)


def test_what_is_shown_holds_no_secret_comment_or_person_and_all_the_rest() -> None:
    text = seen(CONFIG)
    for hidden in ("AZURE_KEY", "/etc/secret", "PEPPER", "SHIP", "house.key", "Ben", "favourite", "ask"):
        assert hidden not in text, hidden
    plain = yaml.safe_load(text)
    users = plain["accounts"]["users"]
    assert users.keys() == {"p_1", "p_2"}
    assert re.fullmatch("hidden-[0-9a-f]{8}", users["p_1"])
    assert plain["accounts"]["teams"] == {"anna": {"weight": 2}}, "a team of that name is no person"
    assert plain["accounts"]["each_key"] == {"tokens_per_day": 100}, "no secret, though it ends so"
    assert plain["listen"]["port"] == 8000


def changed(before: str, after: str) -> dict[str, Any]:
    return between(seen(before), seen(after))


def test_a_diff_says_which_sections_changed_and_how() -> None:
    told = changed(CONFIG, CONFIG.replace("port: 8000", "port: 9000").replace("https://x.test", "https://y.test"))
    assert told["sections"] == ["egress", "listen"]
    assert "-  port: 8000" in told["diff"]
    assert "+  port: 9000" in told["diff"]
    assert "diff_bytes" not in told


def test_another_secret_shows_as_changed_and_not_as_what() -> None:
    told = changed(CONFIG, CONFIG.replace("env.AZURE_KEY", "env.OTHER"))
    assert told["sections"] == ["egress"]
    before, after = (line for line in told["diff"].splitlines() if "hidden-" in line and line[0] in "+-")
    assert before[1:] != after[1:]


def test_what_is_set_for_a_person_shows_as_changed_and_not_for_whom_or_as_what() -> None:
    told = changed(CONFIG, CONFIG.replace("tokens_per_day: 7}", "tokens_per_day: 7777}"))
    assert told["sections"] == ["accounts"]
    assert "7777" not in told["diff"]
    changes = [line.split() for line in told["diff"].splitlines() if "p_" in line]
    assert [sign for sign, *_ in changes] == ["-", "-", "+", "+"]
    assert len({hash_ for *_, hash_ in changes[2:]}) == 1, "the same for all, else values could be guessed one by one"


def test_who_has_the_log_cant_try_out_who_it_was() -> None:
    other = yaml.safe_load(shown(CONFIG.encode(), PSEUDONYMS.__getitem__, Hidden(b"another").word))
    here = yaml.safe_load(seen(CONFIG))
    assert here["accounts"]["users"]["p_1"] != other["accounts"]["users"]["p_1"]
    assert here["egress"] != other["egress"], "nor what secret it was"


def test_comments_and_order_are_no_change() -> None:
    other = yaml.safe_dump(yaml.safe_load(CONFIG), sort_keys=False)
    assert changed(CONFIG, other) == {"sections": [], "diff": ""}


def test_the_first_config_is_all_new() -> None:
    told = between("", seen(CONFIG))
    assert told["sections"] == ["accounts", "audit", "egress", "listen", "models"]
    assert "+  port: 8000" in told["diff"]


def test_a_very_long_diff_is_cut_and_says_so() -> None:
    many = {"models": {f"modell-ä{number}": {"card": "x" * 50} for number in range(2000)}}
    told = between("", shown(yaml.safe_dump(many, allow_unicode=True).encode(), str, HIDE))
    assert len(told["diff"].encode()) in range(64 * 1024 - 3, 64 * 1024 + 1)
    assert told["diff_bytes"] > 100_000


def test_the_next_run_knows_what_was_in_effect_in_the_last_one(tmp_path: Path) -> None:
    applied = Applied(tmp_path / "applied.yaml", PSEUDONYMS.__getitem__, HIDE)
    applied.keep(CONFIG.encode())
    again = Applied(tmp_path / "applied.yaml", PSEUDONYMS.__getitem__, HIDE)
    assert again.changes(CONFIG.encode())["sections"] == []
    assert again.changes(CONFIG.replace("card: tiny", "card: big").encode())["sections"] == ["models"]
    assert "env." not in (tmp_path / "applied.yaml").read_text()
    assert "Ben" not in (tmp_path / "applied.yaml").read_text()


def test_a_file_that_is_broken_or_cant_be_written_only_makes_the_next_change_larger(tmp_path: Path) -> None:
    applied = Applied(tmp_path / "applied.yaml", PSEUDONYMS.__getitem__, HIDE)
    for broken in (b"\xff", b"a: [", b"- 1", b"7"):
        (tmp_path / "applied.yaml").write_bytes(broken)
        assert "models" in applied.changes(CONFIG.encode())["sections"], broken
    Applied(tmp_path / "nowhere" / "applied.yaml", PSEUDONYMS.__getitem__, HIDE).keep(CONFIG.encode())
