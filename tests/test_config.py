"""The config: what is refused, where the fault is, and that no secret is ever shown."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from appliance import config
from appliance.config import Config, LocalModel, RemoteModel, SecretReference, Settings
from appliance.core import Role
from appliance.errors import ConfigInvalid
from tests.fakes.house import ROOT

MODELS = {"chat": {"card": "tiny"}}


def load(tmp_path: Path, **settings: Any) -> Config:
    file = tmp_path / "appliance.yaml"
    file.write_text(yaml.safe_dump({"models": MODELS} | settings, sort_keys=False))
    return config.load(file)


def refused(tmp_path: Path, **settings: Any) -> str:
    with pytest.raises(ConfigInvalid) as caught:
        load(tmp_path, **settings)
    return str(caught.value)


def test_little_needs_to_be_said(tmp_path: Path) -> None:
    settings = load(tmp_path).settings
    assert (settings.listen.host, settings.listen.port, settings.egress.mode) == ("127.0.0.1", 8000, "deny")
    assert settings.egress.seal == "required"
    assert isinstance(settings.models["chat"], LocalModel)


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda file: file.name)
def test_every_config_that_we_ship_is_right(file: Path) -> None:
    assert config.load(file).settings.models


def test_what_our_config_proposes_in_comments_is_right_too(tmp_path: Path) -> None:
    proposed = re.sub(r"^# ((?:accounts|  ).*)$", r"\1", (ROOT / "configs" / "appliance.yaml").read_text(), flags=re.M)
    (tmp_path / "appliance.yaml").write_text(proposed)
    assert config.load(tmp_path / "appliance.yaml").settings.accounts.teams["sales"].at_limit == "warn"


ADVICE = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs" / "accounts.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("advice", ADVICE, ids=lambda advice: advice.split()[1])
def test_what_docs_advise_on_accounts_is_right(tmp_path: Path, advice: str) -> None:
    models = {"chat": {"card": "tiny"}, "chat-small": {"card": "tiny"}}
    assert load(tmp_path, **{"models": models} | yaml.safe_load(advice)).settings.accounts != config.Accounts()


def test_settings_are_frozen(tmp_path: Path) -> None:
    settings = load(tmp_path).settings
    with pytest.raises(ValidationError):
        settings.listen.port = 1  # type: ignore[misc]


def test_relative_paths_start_at_the_config_file(tmp_path: Path) -> None:
    read = load(tmp_path, state="here", models_folder="/elsewhere")
    assert (read.state, read.models_folder) == (tmp_path / "here", Path("/elsewhere"))


def test_an_unknown_key_is_named_with_its_line_and_the_nearest_known_one(tmp_path: Path) -> None:
    message = refused(tmp_path, listen={"host": "127.0.0.1", "prot": 1})
    assert "line 6: listen.prot: unknown setting; did you mean `port`?" in message


def test_an_unknown_key_inside_a_model_is_named_without_the_tag_of_its_union(tmp_path: Path) -> None:
    message = refused(tmp_path, models={"chat": {"card": "tiny", "batching": {"max_sequence": 4}}})
    assert "models.chat.batching.max_sequence: unknown setting; did you mean `max_sequences`?" in message


@pytest.mark.parametrize("host", ["0.0.0.0", "10.1.2.3", "::", "203.0.113.9"])  # noqa: S104 - it is refused
def test_an_address_on_the_network_needs_tls_or_a_proxy(tmp_path: Path, host: str) -> None:
    assert "is reachable from the network" in refused(tmp_path, listen={"host": host})
    assert load(tmp_path, listen={"host": host, "behind_proxy": True})
    assert load(tmp_path, listen={"host": host, "tls": {"certificate": "c.pem", "key": "k.pem"}})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1"])
def test_loopback_needs_nothing(tmp_path: Path, host: str) -> None:
    assert load(tmp_path, listen={"host": host})


@pytest.mark.parametrize("host", ["localhost", "example.internal", ""])
def test_a_name_is_no_address_to_listen_on(tmp_path: Path, host: str) -> None:
    assert "must be an IP address" in refused(tmp_path, listen={"host": host})


def test_a_unix_socket_takes_the_place_of_an_address(tmp_path: Path) -> None:
    assert load(tmp_path, listen={"socket": "api.sock"}).settings.listen.socket == Path("api.sock")
    assert load(tmp_path, listen={"socket": "api.sock", "behind_proxy": True, "shutdown_seconds": 1})
    for beside in ({"host": "127.0.0.1"}, {"port": 8000}):
        assert "takes the place of `host` and `port`" in refused(tmp_path, listen={"socket": "api.sock", **beside})
    tls = {"certificate": "c.pem", "key": "k.pem"}
    assert "takes no `tls`" in refused(tmp_path, listen={"socket": "api.sock", "tls": tls})


@pytest.mark.parametrize(
    ("endpoint", "right"),
    [
        ("https://gpu2.example.internal/v1", True),
        ("https://gpu2.example.internal:8443", True),
        ("http://127.0.0.1:8001/v1", True),
        ("http://10.0.0.7:8001/v1", True),
        ("http://[::1]:8001/v1", True),
        ("unix:/run/vllm.sock", True),
        ("http://8.8.8.8/v1", False),
        ("https://8.8.8.8/v1", False),
        ("https://gpu2.example.internal:sk-secret@/v1", False),
        ("https://user:secret@gpu2.example.internal/v1", False),
        ("https://gpu2.example.internal/v1?key=1", False),
        ("https://gpu2.example.internal/v1#a", False),
        ("ftp://10.0.0.7/v1", False),
        ("gpu2.example.internal", False),
        ("https://", False),
        ("https://10.0.0.7:99999/v1", False),
        ("unix:relative.sock", False),
    ],
)
def test_an_endpoint_is_a_private_place_and_says_nothing_secret(tmp_path: Path, endpoint: str, right: bool) -> None:
    if right:
        model = load(tmp_path, models={"far": {"endpoint": endpoint}}).settings.models["far"]
        assert isinstance(model, RemoteModel)
    else:
        message = refused(tmp_path, models={"far": {"endpoint": endpoint}})
        assert "models.far: endpoint" in message
        assert "secret" not in message


def test_a_model_is_a_card_or_an_endpoint_and_never_both(tmp_path: Path) -> None:
    assert "models.chat" in refused(tmp_path, models={"chat": {"card": "tiny", "endpoint": "https://a.internal"}})
    assert "models.chat" in refused(tmp_path, models={"chat": {}})
    assert "models.chat" in refused(tmp_path, models={"chat": "tiny"})
    assert "models" in refused(tmp_path, models={})


@pytest.mark.parametrize("name", ["", "a b", "/a", "ä", "x" * 300, "a\nb"])
def test_a_model_name_fits_into_a_url_and_a_log(tmp_path: Path, name: str) -> None:
    assert "models" in refused(tmp_path, models={name: {"card": "tiny"}})


@pytest.mark.parametrize("card", ["../tiny", "/etc", "Tiny", "", "a" * 80])
def test_a_card_is_a_plain_folder_name(tmp_path: Path, card: str) -> None:
    assert "models.chat.card" in refused(tmp_path, models={"chat": {"card": card}})


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("listen", "port", 70_000),
        ("listen", "port", "8000"),
        ("listen", "port", True),
        ("egress", "mode", "allow"),
        ("egress", "seal", "none"),
        ("limits", "json_depth", 1000),
        ("limits", "body_bytes", 0),
        ("objectives", "share", 1.5),
        ("engines", "device", "tpu"),
        ("engines", "restart_backoff_seconds", -1),
    ],
)
def test_a_value_out_of_bounds_is_named(tmp_path: Path, section: str, key: str, value: object) -> None:
    assert f"{section}.{key}" in refused(tmp_path, **{section: {key: value}})


class TestSecrets:
    def test_a_secret_is_read_from_where_it_is(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FAR_KEY", "sk-from-env")
        (tmp_path / "key").write_text("sk-from-file\n")
        assert SecretReference("env.FAR_KEY").read(tmp_path) == "sk-from-env"
        assert SecretReference("file:key").read(tmp_path) == "sk-from-file"
        assert SecretReference(f"file:{tmp_path}/key").read(Path("/")) == "sk-from-file"

    def test_a_secret_that_is_not_there_is_named_by_its_reference(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("FAR_KEY", raising=False)
        (tmp_path / "empty").write_text("\n")
        for reference in ("env.FAR_KEY", "file:none", "file:empty"):
            with pytest.raises(ConfigInvalid, match=reference):
                SecretReference(reference).read(tmp_path)

    @pytest.mark.parametrize("key", ["sk-canary-1234", "env.", "env.a b", "file:", ["sk-canary-1234"], 1234567])
    def test_a_secret_itself_is_refused_and_not_repeated(self, tmp_path: Path, key: object) -> None:
        message = refused(tmp_path, models={"far": {"endpoint": "https://a.internal", "key": key}})
        assert "models.far.key" in message
        assert "canary" not in message
        assert "1234567" not in message

    def test_a_secret_never_shows_in_print(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FAR_KEY", "sk-canary")
        read = load(tmp_path, models={"far": {"endpoint": "https://a.internal", "key": "env.FAR_KEY"}})
        shown = f"{read} {read.settings!r} {read.settings.model_dump()}"
        assert "env.FAR_KEY" in shown
        assert "canary" not in shown


def test_every_setting_is_described() -> None:
    from appliance.strict_yaml import field_names

    def undescribed(model: Any) -> list[str]:
        return [name for name, field in model.model_fields.items() if not field.description]

    sections = [Settings, LocalModel, RemoteModel, *config.Section.__subclasses__()]
    assert {name for section in sections for name in undescribed(section)} == set()
    assert "max_batched_tokens" in field_names(Settings)


CLOUD = {"cloud": {"url": "https://api.mistral.ai/v1"}}


def test_a_provider_is_a_name_outside_over_tls(tmp_path: Path) -> None:
    egress = load(tmp_path, egress={"mode": "anonymized", "providers": CLOUD}).settings.egress
    assert egress.providers["cloud"].url == "https://api.mistral.ai/v1"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://api.mistral.ai/v1", "url must start with https://"),
        *((f"https://{host}/v1", "url must hold a public DNS name") for host in (
            "10.0.0.1", "8.8.8.8", "[2001:4860:4860::8888]", "localhost", "127.1", "2130706433", "0x7f.0.0.1",
            "a..b.example", "-a.example", "api.mistral.ai.", "api_x.example", "", f"{'a' * 64}.example",
        )),
        ("https://api.mistral.ai:99999/v1", "the port must be a number"),
        ("https://user:secret@api.mistral.ai/v1", "no credentials, query or fragment"),
        ("https://api.mistral.ai/v1?key=secret", "no credentials, query or fragment"),
    ],
)  # fmt: skip
def test_a_provider_elsewhere_is_refused(tmp_path: Path, url: str, says: str) -> None:
    message = refused(tmp_path, egress={"mode": "anonymized", "providers": {"cloud": {"url": url}}})
    assert "egress.providers.cloud" in message
    assert says in message


def test_providers_and_the_mode_that_allows_them_come_together(tmp_path: Path) -> None:
    for egress in ("anonymized", {"mode": "anonymized"}, {"mode": "anonymized", "providers": {}}):
        message = refused(tmp_path, egress=egress)
        assert "egress: " in message
        assert "mode: anonymized needs `providers:" in message
    for egress in ({"providers": CLOUD}, {"mode": "deny", "providers": CLOUD}):
        assert "mode: deny allows no `providers`" in refused(tmp_path, egress=egress)


RULE = {"data_class": "personal", "may": "pseudonymise", "purpose": "letters", "regions": ["eu"], "agreement": "DPA 1"}
NEAR = {"url": "https://api.mistral.ai/v1", "region": "eu", "agreement": "DPA 1"}
MODEL = {"model": "large", "context_length": 4096, "prompt_euros_per_million": 1, "completion_euros_per_million": 2}


def opened(*rules: dict[str, Any], provider: dict[str, Any] = NEAR, **more: Any) -> dict[str, Any]:
    """A config that lets something out."""
    egress = {"mode": "anonymized", "providers": {"near": provider}, "euros_per_day": 5}
    return {"egress": egress, "privacy": {"policy": list(rules or [RULE])}} | more


def test_nothing_may_leave_until_it_is_said(tmp_path: Path) -> None:
    privacy = load(tmp_path).settings.privacy
    assert (privacy.policy, privacy.floor) == ([], "internal")
    settings = load(tmp_path, **opened(provider=NEAR | {"models": {"chat": MODEL}})).settings
    assert settings.privacy.policy[0].admits(settings.egress.providers["near"])


@pytest.mark.parametrize(("settings", "says"), [
    ({"privacy": {"policy": [RULE]}},
     "privacy.policy lets requests out, and egress.mode: deny lets nothing out: use egress.mode: anonymized, or leave"),
    (opened(RULE | {"use_case": "letters"}),
     "privacy.policy: rule 1 (personal, use case letters): there is no 'letters' in `accounts.use_cases`"),
    (opened(RULE, RULE | {"data_class": "internal", "regions": ["us", "ch"]}),
     "privacy.policy: rule 2 (internal, any use case): no provider of egress.providers has region: us or ch together "
     "with agreement: DPA 1: write both at a provider, or change the rule"),
    (opened(RULE | {"agreement": "DPA 2"}), "has region: eu together with agreement: DPA 2"),
    (opened(provider={"url": NEAR["url"]}), "no provider of egress.providers has region: eu"),
    (opened(provider=NEAR | {"models": {"gone": MODEL}}),
     "egress.providers.near.models.gone: there is no such model in `models`"),
    (opened(egress={"mode": "anonymized", "providers": {"near": NEAR | {"models": {"chat": MODEL}}}}),
     "egress.euros_per_day must be more than 0 for privacy.policy to let anything out"),
    (opened(RULE | {"data_class": "public", "may": "send"}),
     "rule 1 (public, any use case) never decides, since floor: internal makes every request at least that: set floor: "
     "public, or leave the rule out"),
    (opened(RULE, RULE | {"use_case": "letters"}, accounts={"use_cases": {"letters": {}}}),
     "rule 2 (personal, use case letters) never decides, since rule 1 (personal, any use case) does before it"),
    (opened(RULE | {"data_class": "internal", "use_case": "health"},
            accounts={"use_cases": {"health": {"data_class": "personal"}}}),
     "rule 1 (internal, use case health) never decides, since accounts.use_cases.health.data_class: personal makes"),
    (opened(RULE, RULE), "rule 2 (personal, any use case) never decides"),
    (opened(RULE | {"may": "send"}), "may: send is for data_class: public; for personal use may: pseudonymise"),
    (opened(RULE | {"regions": []}), "privacy.policy[0].regions"),
    (opened(RULE | {"regions": ["EU"]}), "privacy.policy[0].regions[0]"),
    *((opened({name: value for name, value in RULE.items() if name != left_out}), f"privacy.policy[0].{left_out}")
      for left_out in RULE),
    ({"privacy": {"floor": "secret"}}, "privacy.floor"),
    ({"privacy": {"gate": {"languages": ["fr"]}}}, "privacy.gate.languages"),
    (opened(provider=NEAR | {"api": "azure"}), "api: azure and api_version"),
    ({"accounts": {"use_cases": {"mail": {"data_class": "secret"}}}}, "accounts.use_cases.mail.data_class"),
])  # fmt: skip
def test_a_policy_that_is_wrong_or_idle_is_refused_and_says_what_to_do(
    tmp_path: Path, settings: dict[str, Any], says: str
) -> None:
    assert says in refused(tmp_path, **settings)


def test_a_rule_of_one_use_case_may_stand_before_that_of_all(tmp_path: Path) -> None:
    rules = RULE | {"use_case": "letters"}, RULE, RULE | {"data_class": "internal"}
    assert load(tmp_path, **opened(*rules, accounts={"use_cases": {"letters": {}}}))
    public = opened(RULE | {"data_class": "public", "may": "send"})
    assert load(tmp_path, **public | {"privacy": public["privacy"] | {"floor": "public"}})


PRIVATE = {"issuer": "https://login.example.internal", "audience": "appliance"}
POSTGRESQL = {"host": "10.0.0.5", "database": "appliance", "user": "appliance", "password": "env.DATABASE_PASSWORD"}


def test_nobody_is_limited_and_nothing_costs_until_it_is_said(tmp_path: Path) -> None:
    accounts = load(tmp_path).settings.accounts
    assert accounts.time_zone == accounts.zone.key == "Europe/Berlin"
    assert accounts.each_key == accounts.each_user == config.Allowance()
    assert accounts.each_team == config.Team()
    assert set(config.Allowance().model_dump().values()) == {None, "reject"}
    assert (accounts.store.postgresql, accounts.identity, accounts.prices.models) == (None, None, {})


def test_names_of_people_and_teams_are_as_the_company_writes_them(tmp_path: Path) -> None:
    accounts = {
        "users": {"anna@example.com": {"tokens_per_day": 1}},
        "teams": {"Einkauf & Vertrieb": {"weight": 2}},
    }
    assert load(tmp_path, accounts=accounts).settings.accounts.teams["Einkauf & Vertrieb"].weight == 2


@pytest.mark.parametrize(
    ("accounts", "where", "says"),
    [
        ({"time_zone": "Berlin"}, "accounts.time_zone", "must be a time zone such as Europe/Berlin"),
        ({"time_zone": "../etc/passwd"}, "accounts.time_zone", "must be a time zone such as Europe/Berlin"),
        ({"time_zone": ""}, "accounts.time_zone", "must be a time zone such as Europe/Berlin"),
        ({"each_key": {"tokens_per_week": 1}}, "accounts.each_key.tokens_per_week", "unknown setting"),
        ({"each_key": {"token_per_day": 1}}, "accounts.each_key.token_per_day", "did you mean `tokens_per_day`?"),
        ({"each_key": {"tokens_per_day": 0}}, "accounts.each_key.tokens_per_day", "at least 1"),
        ({"each_key": {"tokens_per_day": 1.5}}, "accounts.each_key.tokens_per_day", "must be a whole number"),
        ({"each_key": {"euros_per_day": 0}}, "accounts.each_key.euros_per_day", "must be greater than 0"),
        ({"each_key": {"parallel_requests": 0}}, "accounts.each_key.parallel_requests", "at least 1"),
        ({"each_key": {"tokens_per_minute": 10**400}}, "accounts.each_key.tokens_per_minute", "at most"),
        ({"each_key": {"euros_per_day": 1e305}}, "accounts.each_key.euros_per_day", "at most"),
        ({"each_key": {"euros_per_day": math.inf}}, "accounts.each_key.euros_per_day", "finite number"),
        (
            {"teams": {"sales": {"at_limit": "stop"}}},
            "accounts.teams.sales.at_limit",
            "'reject', 'step_down' or 'warn'",
        ),
        ({"teams": {"sales": {"weight": 0}}}, "accounts.teams.sales.weight", "must be greater than 0"),
        ({"users": {"anna": {"weight": 2}}}, "accounts.users.anna.weight", "unknown setting"),
        ({"users": {"a/b": {}}}, "accounts.users", "match"),
        ({"use_cases": {"Mail Draft": {}}}, "accounts.use_cases", "match"),
        (
            {"use_cases": {"mail": {"service_class": "urgent"}}},
            "accounts.use_cases.mail.service_class",
            "'interactive', 'standard' or 'batch'",
        ),
    ],
)
def test_a_wrong_allowance_is_named_with_what_is_right(
    tmp_path: Path, accounts: dict[str, Any], where: str, says: str
) -> None:
    message = refused(tmp_path, accounts=accounts)
    assert where in message
    assert says in message


@pytest.mark.parametrize("holder", ["each_key", "each_user", "each_team", "users", "teams", "use_cases"])
def test_stepping_down_names_a_model_that_is_served(tmp_path: Path, holder: str) -> None:
    def accounts(**allowance: Any) -> dict[str, Any]:
        return {holder: allowance if holder.startswith("each_") else {"sales": allowance}}

    together = "at_limit: step_down and step_down_to: MODEL go together"
    assert together in refused(tmp_path, accounts=accounts(at_limit="step_down"))
    assert together in refused(tmp_path, accounts=accounts(step_down_to="chat"))
    assert together in refused(tmp_path, accounts=accounts(at_limit="warn", step_down_to="chat"))
    message = refused(tmp_path, accounts=accounts(at_limit="step_down", step_down_to="smaller"))
    where = holder if holder.startswith("each_") else f"{holder}.sales"
    assert f"accounts.{where}.step_down_to: there is no model 'smaller' in `models`" in message
    assert load(tmp_path, accounts=accounts(at_limit="step_down", step_down_to="chat"))


@pytest.mark.parametrize(
    ("prices", "says"),
    [
        ({"models": {"chat": {}}}, "give either tokens_per_second, or both"),
        ({"models": {"chat": {"prompt_euros_per_million": 1}}}, "give either tokens_per_second, or both"),
        (
            {
                "machine_hour_euros": 1,
                "models": {
                    "chat": {
                        "tokens_per_second": 9,
                        "prompt_euros_per_million": 1,
                        "completion_euros_per_million": 1,
                    }
                },
            },
            "give either tokens_per_second, or both",
        ),
        ({"models": {"chat": {"tokens_per_second": 9}}}, "models.chat.tokens_per_second needs machine_hour_euros"),
        ({"machine_hour_euros": 1, "models": {"chat": {"tokens_per_second": 0}}}, "at least 0.01"),
        ({"machine_hour_euros": -1}, "at least 0"),
        (
            {"models": {"chat": {"prompt_euros_per_million": 1e300, "completion_euros_per_million": 0}}},
            "at most",
        ),
    ],
)
def test_a_price_is_told_in_one_way(tmp_path: Path, prices: dict[str, Any], says: str) -> None:
    message = refused(tmp_path, accounts={"prices": prices})
    assert "accounts.prices" in message
    assert says in message


def test_people_with_a_token_name_use_cases_that_there_are(tmp_path: Path) -> None:
    identity = PRIVATE | {"keys_url": "https://login.example.internal/keys", "use_cases": ["mail"]}
    says = "identity.use_cases: there is no 'mail' in `use_cases`"
    assert says in refused(tmp_path, accounts={"identity": identity})
    assert load(tmp_path, accounts={"identity": identity, "use_cases": {"mail": {}}})


def test_both_ways_to_tell_a_price_are_right(tmp_path: Path) -> None:
    listed = {"prompt_euros_per_million": 0, "completion_euros_per_million": 6.5}
    models = {"chat": {"card": "tiny"}, "big": {"card": "big"}}
    prices = {"machine_hour_euros": 1.2, "models": {"chat": {"tokens_per_second": 900}, "big": listed}}
    read = load(tmp_path, models=models, accounts={"prices": prices}).settings.accounts.prices
    assert read.models["chat"].tokens_per_second == 900
    assert read.models["big"].completion_euros_per_million == 6.5


def test_a_price_is_for_a_model_that_is_served(tmp_path: Path) -> None:
    free = {"prompt_euros_per_million": 0, "completion_euros_per_million": 0}
    message = refused(tmp_path, accounts={"prices": {"models": {"chta": free}}})
    assert "accounts.prices.models.chta: there is no such model in `models`" in message


@pytest.mark.parametrize("limit", ["euros_per_minute", "euros_per_day", "euros_per_month"])
def test_a_limit_in_euros_is_none_for_a_model_without_a_price_so_it_needs_one(tmp_path: Path, limit: str) -> None:
    teams = {"sales": {limit: 5}}
    message = refused(tmp_path, accounts={"teams": teams})
    assert (
        "accounts.teams.sales limits euros, and 'chat' has no price: give it one in accounts.prices.models" in message
    )
    free = {"prompt_euros_per_million": 0, "completion_euros_per_million": 0}
    assert load(tmp_path, accounts={"teams": teams, "prices": {"models": {"chat": free}}})


def test_shared_books_need_a_shared_pepper_by_reference(tmp_path: Path) -> None:
    together = "postgresql and pepper go together"
    assert together in refused(tmp_path, accounts={"store": {"postgresql": POSTGRESQL}})
    assert together in refused(tmp_path, accounts={"store": {"pepper": "env.PEPPER"}})
    message = refused(tmp_path, accounts={"store": {"postgresql": POSTGRESQL, "pepper": "c0ffee" * 10 + "c0fe"}})
    assert "accounts.store.pepper: must be a reference" in message
    assert "c0ffee" not in message
    message = refused(tmp_path, accounts={"store": {"postgresql": POSTGRESQL | {"password": "hunter2"}}})
    assert "accounts.store.postgresql.password: must be a reference" in message
    assert "hunter2" not in message
    assert load(tmp_path, accounts={"store": {"postgresql": POSTGRESQL, "pepper": "env.PEPPER"}})


@pytest.mark.parametrize(
    ("host", "right"),
    [
        ("10.0.0.5", True),
        ("127.0.0.1", True),
        ("fd00::5", True),
        ("database.example.internal", True),
        ("/run/postgresql", True),
        ("8.8.8.8", False),
        ("2001:4860:4860::8888", False),
    ],
)
def test_the_database_stands_in_the_house(tmp_path: Path, host: str, right: bool) -> None:
    store = {"postgresql": POSTGRESQL | {"host": host}, "pepper": "env.PEPPER"}
    if right:
        assert load(tmp_path, accounts={"store": store})
    else:
        message = refused(tmp_path, accounts={"store": store})
        assert "accounts.store.postgresql: host must be a private address" in message


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://login.example.internal/keys", None),
        ("https://10.0.0.9:8443/realms/house/certs", None),
        ("http://login.example.internal/keys", "keys_url must start with https://"),
        ("https://", "keys_url must start with https://"),
        ("https://8.8.8.8/keys", "keys_url must lead to a host in the house"),
        ("https://user:secret@login.example.internal/keys", "keys_url may hold no credentials"),
        ("https://login.example.internal:99999/keys", "keys_url: the port must be a number"),
    ],
)
def test_the_identity_provider_stands_in_the_house(tmp_path: Path, url: str, says: str | None) -> None:
    accounts = {"identity": PRIVATE | {"keys_url": url}}
    if says is None:
        assert load(tmp_path, accounts=accounts).settings.accounts.identity is not None
    else:
        message = refused(tmp_path, accounts=accounts)
        assert f"accounts.identity: {says}" in message
        assert "secret" not in message


def test_the_identity_provider_maps_to_roles_that_there_are(tmp_path: Path) -> None:
    identity = PRIVATE | {"keys_url": "https://login.example.internal/keys"}
    assert "accounts.identity.roles.llm-admins" in refused(
        tmp_path, accounts={"identity": identity | {"roles": {"llm-admins": "root"}}}
    )
    read = load(tmp_path, accounts={"identity": identity | {"roles": {"llm-admins": "admin"}}})
    assert read.settings.accounts.identity is not None
    assert read.settings.accounts.identity.roles["llm-admins"] is Role.ADMIN
    for missing in ("issuer", "audience", "keys_url"):
        less = {name: value for name, value in identity.items() if name != missing}
        assert f"accounts.identity.{missing}: is missing" in refused(tmp_path, accounts={"identity": less})


@pytest.mark.parametrize(
    ("queue", "where"),
    [
        ({"longest": 0}, "queue.longest"),
        ({"engine_waiting": 0}, "queue.engine_waiting"),
        ({"kv_cache_share": 1.5}, "queue.kv_cache_share"),
        ({"headroom": 1}, "queue.headroom"),
        ({"waits": {"interactive_seconds": -1}}, "queue.waits.interactive_seconds"),
        ({"waits": {"urgent_seconds": 1}}, "queue.waits.urgent_seconds: unknown setting"),
    ],
)
def test_a_queue_out_of_bounds_is_named(tmp_path: Path, queue: dict[str, Any], where: str) -> None:
    assert where in refused(tmp_path, queue=queue)


LEGAL = {"chat": {"card": "tiny", "adapters": {"chat-legal": "legal"}}}


def test_an_adapter_is_a_model_for_prices_and_budgets(tmp_path: Path) -> None:
    free = {"prompt_euros_per_million": 0, "completion_euros_per_million": 0}
    steps = {"each_user": {"tokens_per_day": 5, "at_limit": "step_down", "step_down_to": "chat-legal"}}
    assert load(tmp_path, models=LEGAL, accounts=steps).settings.names == ("chat", "chat-legal")
    euros = {"each_user": {"euros_per_day": 1}}
    message = refused(tmp_path, models=LEGAL, accounts=euros | {"prices": {"models": {"chat": free}}})
    assert "'chat-legal' has no price" in message
    assert load(tmp_path, models=LEGAL, accounts=euros | {"prices": {"models": {"chat": free, "chat-legal": free}}})


def test_a_name_of_engines_on_trial_is_no_models(tmp_path: Path) -> None:
    assert "kept for evaluations" in refused(tmp_path, models={"trial/tiny": {"card": "tiny"}})


@pytest.mark.parametrize("other", ["chat-legal", "other"])
def test_an_adapters_name_is_nobody_elses(tmp_path: Path, other: str) -> None:
    taken = {"card": "tiny"} if other == "chat-legal" else {"card": "tiny", "adapters": {"chat-legal": "legal"}}
    message = refused(tmp_path, models=LEGAL | {other: taken})
    assert "'chat-legal' is the public name of 2 models or adapters" in message
    assert "'chat' is the public name" in refused(tmp_path, models={"chat": {"card": "t", "adapters": {"chat": "a"}}})


def test_a_link_that_stays_in_its_folder_is_followed_anew_and_others_once(tmp_path: Path) -> None:
    """Kubernetes points the first kind elsewhere at each change, and removes what they led to."""
    real, folder = tmp_path / "real.yaml", tmp_path / "mounted"
    (folder / "..2026").mkdir(parents=True)
    real.write_text("state: here\n")
    (folder / "..2026" / "appliance.yaml").write_text("state: there\n")
    (folder / "..data").symlink_to("..2026")
    (folder / "appliance.yaml").symlink_to("..data/appliance.yaml")
    (folder / "outside.yaml").symlink_to(real)
    assert config.place(folder / "appliance.yaml") == folder / "appliance.yaml"
    assert config.place(folder / "outside.yaml") == real
    assert config.state_of(folder / "appliance.yaml") == folder / "there"


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("state: /var/lib/x\nmodels: [", "/var/lib/x"),
        ("{: :\nstate:  'a b'  # ours\n\xff", "a b"),
        ("models: {}", "../state"),
        ("state: [1]", "../state"),
        ("state: {", "../state"),
        ("", "../state"),
    ],
)
def test_the_state_folder_is_found_in_a_config_that_is_wrong(tmp_path: Path, text: str, state: str) -> None:
    (tmp_path / "appliance.yaml").write_bytes(text.encode("latin-1"))
    assert config.state_of(tmp_path / "appliance.yaml") == (tmp_path / state).resolve()
