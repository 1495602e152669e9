from __future__ import annotations

import hashlib
import http.client
import resource
import signal
from pathlib import Path

import pytest

from appliance.errors import PreparationFailed
from appliance.weights.prepare import prepare
from tests.weights.conftest import PREPARE, FileServer, write_card, write_checkpoint


def publish(server: FileServer, **extra: bytes) -> str:
    """A checkpoint on the server with its SHA256SUMS, whose own checksum is returned."""
    write_checkpoint(server.folder, size=300_000)
    for name, body in extra.items():
        (server.folder / name.replace("_", ".")).write_bytes(body)
    files = sorted(path for path in server.folder.iterdir() if path.name != "SHA256SUMS")
    sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)
    (server.folder / "SHA256SUMS").write_text(sums)
    return hashlib.sha256(sums.encode()).hexdigest()


def test_a_mirror_is_downloaded_and_checked(models: Path, server: FileServer) -> None:
    pinned = publish(server, README_md=b"hello")
    write_card(models / "tiny", source={"mirror": {"url": server.url, "sha256sums": pinned}})
    weights = prepare("tiny", models, PREPARE, print)
    assert (weights / "model.safetensors").read_bytes() == (server.folder / "model.safetensors").read_bytes()
    assert not (weights / "README.md").exists()
    assert sorted(path.name for path in (models / "tiny").iterdir()) == ["card.yaml", "weights"]


def test_an_interrupted_download_goes_on_where_it_ended(models: Path, server: FileServer) -> None:
    publish(server)
    server.cut = [100_000, 50_000]
    write_card(models / "tiny", source={"mirror": {"url": server.url}})
    prepare("tiny", models, PREPARE, print)
    ranges = [wanted for name, wanted in server.asked if name == "model.safetensors"]
    assert ranges == [None, "bytes=100000-", "bytes=150000-"]


def test_a_dead_server_ends_the_try_and_the_next_one_resumes(models: Path, server: FileServer) -> None:
    publish(server)
    server.cut = [100_000, 0]
    write_card(models / "tiny", source={"mirror": {"url": server.url}})
    with pytest.raises(PreparationFailed, match="What has arrived is kept"):
        prepare("tiny", models, PREPARE, print)
    assert not (models / "tiny" / "weights").exists()
    prepare("tiny", models, PREPARE, print)
    assert server.asked[-2:] == [("model.safetensors", "bytes=100000-"), ("tokenizer.json", None)]


def test_a_part_of_another_version_is_fetched_anew(models: Path, server: FileServer) -> None:
    publish(server)
    write_card(models / "tiny", source={"mirror": {"url": server.url}})
    part = models / "tiny" / ".download" / "model.safetensors.part"
    for old in (b"x" * 1000, b"x" * 400_000):
        part.parent.mkdir()
        part.write_bytes(old)
        weights = prepare("tiny", models, PREPARE, print)
        assert (weights / "model.safetensors").stat().st_size > 300_000
        (weights / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("file", "isn't the file that SHA256SUMS describes"),
        ("sums", "isn't the one that the card expects"),
        ("pickle", r"pytorch_model\.bin can run code"),
        ("traversal", "has a line that `sha256sum` didn't write"),
        ("gone", "404"),
    ],
)
def test_what_does_not_fit_is_refused(models: Path, server: FileServer, change: str, said: str) -> None:
    pinned: str | None = publish(server)
    sums = server.folder / "SHA256SUMS"
    if change == "file":
        (server.folder / "model.safetensors").write_bytes(b"another")
    elif change == "gone":
        (server.folder / "model.safetensors").unlink()
    else:
        line = {"sums": "", "pickle": "0" * 64 + "  pytorch_model.bin\n", "traversal": "0" * 64 + "  ../a.json\n"}
        sums.write_text(sums.read_text() + (line[change] or "0" * 64 + "  more.json\n"))
        pinned = pinned if change == "sums" else None
    write_card(models / "tiny", source={"mirror": {"url": server.url} | ({"sha256sums": pinned} if pinned else {})})
    with pytest.raises(PreparationFailed, match=said):
        prepare("tiny", models, PREPARE, print)
    assert not (models / "tiny" / "weights").exists()


def test_a_redirect_is_not_followed(models: Path, server: FileServer) -> None:
    (server.folder / "SHA256SUMS").write_text("0" * 64 + "  moved.json\n")
    write_card(models / "tiny", source={"mirror": {"url": server.url}})
    with pytest.raises(PreparationFailed, match=r"moved\.json redirects; name the final address"):
        prepare("tiny", models, PREPARE, print)


def test_a_full_disk_is_said_and_what_has_arrived_is_kept(
    models: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(server)
    write_card(models / "tiny", source={"mirror": {"url": server.url}})
    read = http.client.HTTPResponse.read

    def full(response: http.client.HTTPResponse, amount: int | None = None) -> bytes:
        found = read(response, amount)
        if len(found) > 100_000:
            resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, before[1]))
        return found

    monkeypatch.setattr(http.client.HTTPResponse, "read", full)
    before, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(PreparationFailed, match=r"File too large.*Make room.*What has arrived is kept"):
            prepare("tiny", models, PREPARE, print)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert (models / "tiny" / ".download" / "model.safetensors.part").stat().st_size > 0


def test_sums_that_are_too_long_are_not_cut(models: Path, server: FileServer) -> None:
    publish(server)
    line = f"{'0' * 64}  {'a' * 100}.json\n"
    (server.folder / "SHA256SUMS").write_text(line * 6500)
    write_card(models / "tiny", source={"mirror": {"url": server.url}})
    with pytest.raises(PreparationFailed, match="SHA256SUMS is over 1000000 bytes"):
        prepare("tiny", models, PREPARE, print)


def test_a_mirror_of_prepared_weights_is_prepared_once(models: Path, server: FileServer) -> None:
    """Whoever serves a folder `weights` serves its record, too."""
    publish(server, manifest_json=b"{}")
    write_card(models / "tiny", source={"mirror": {"url": server.url}})
    prepare("tiny", models, PREPARE, print)
    asked = len(server.asked)
    prepare("tiny", models, PREPARE, print)
    assert len(server.asked) == asked


def test_plain_http_to_a_public_address_is_refused(models: Path) -> None:
    write_card(models / "tiny", source={"mirror": {"url": "http://8.8.8.8/models"}})
    with pytest.raises(PreparationFailed, match="isn't on a private network: use `https:`"):
        prepare("tiny", models, PREPARE, print, ask=lambda _: None)
    with pytest.raises(PreparationFailed, match=r"outside the house.*--this-machine-may-fetch"):
        prepare("tiny", models, PREPARE, print)
