"""The config: what is refused, where the fault is, and that no secret is ever shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from appliance import config
from appliance.config import Config, LocalModel, RemoteModel, SecretReference, Settings
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
