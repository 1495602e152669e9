"""What isn't the bundle that was made is refused, with the name of the file that shows it."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from appliance.bundle import sums
from appliance.errors import BundleInvalid


def said(_: str) -> None:
    pass


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A folder with its SHA256SUMS."""
    for name in (
        "Makefile",
        "appliance/app.py",
        "configs/appliance.yaml",
        "configs/locks/uv.txt",
        "models/tiny/card.yaml",
        "models/tiny/weights/model.safetensors",
        "offline/wheels/ä b-1.0-py3-none-any.whl",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    sums.write(tmp_path, said)
    return tmp_path


def test_a_whole_bundle_is_whole_for_us_and_for_sha256sum(whole: Path) -> None:
    assert sums.verify(whole, said) == []
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", sums.NAME], cwd=whole, check=True)


def test_writing_returns_the_checksum_to_compare_by_another_way(whole: Path) -> None:
    (whole / sums.NAME).unlink()
    assert sums.write(whole, said) == hashlib.sha256((whole / sums.NAME).read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["offline/wheels/ä b-1.0-py3-none-any.whl", "configs/locks/uv.txt", "Makefile"])
def test_a_flipped_bit_is_found(whole: Path, name: str) -> None:
    data = bytearray((whole / name).read_bytes())
    data[3] ^= 1
    (whole / name).write_bytes(data)
    with pytest.raises(BundleInvalid, match=f"{name} isn't the file that was bundled"):
        sums.verify(whole, said)


@pytest.mark.parametrize(
    "name", ["appliance/app.py", "models/tiny/weights/model.safetensors", "configs/appliance.yaml"]
)
def test_a_missing_file_is_found(whole: Path, name: str) -> None:
    (whole / name).unlink()
    with pytest.raises(BundleInvalid, match=f"{name} is missing"):
        sums.verify(whole, said)


@pytest.mark.parametrize(
    "name",
    [
        "offline/wheels/evil-1.0-py3-none-any.whl",
        "appliance/state/evil.py",
        "sitecustomize.py",
        "models/evil.py",
        "models/tiny/weights/evil.bin",
        "configs/locks/evil.yaml",
        "offline/.venvs/evil",
    ],
)
def test_a_file_too_many_is_found(whole: Path, name: str) -> None:
    (whole / name).parent.mkdir(parents=True, exist_ok=True)
    (whole / name).write_text("evil")
    with pytest.raises(BundleInvalid, match=f"{name} doesn't belong to this bundle"):
        sums.verify(whole, said)


@pytest.mark.parametrize("target", ["/etc/hostname", "../elsewhere", "Makefile"])
def test_a_link_is_found_wherever_it_leads(whole: Path, target: str) -> None:
    (whole / "appliance" / "app.py").unlink()
    (whole / "appliance" / "app.py").symlink_to(target)
    with pytest.raises(BundleInvalid, match=r"appliance/app\.py is a link"):
        sums.verify(whole, said)


def test_a_linked_folder_is_found_and_not_followed(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (whole / "appliance" / "more").symlink_to(tmp_path_factory.mktemp("outside"))
    with pytest.raises(BundleInvalid, match="appliance/more is a link"):
        sums.verify(whole, said)


def test_what_an_administrator_adds_and_edits_is_theirs(whole: Path) -> None:
    for name in (
        "configs/appliance.yaml",
        "configs/ours.yaml",
        "models/ours/card.yaml",
        "models/ours/weights/model.safetensors",
        "models/tiny/incoming/config.json",
        ".venvs/gateway/bin/python",
        "state/keys.json",
        "results/bench/report.html",
        "appliance/__pycache__/app.cpython-311.pyc",
    ):
        (whole / name).parent.mkdir(parents=True, exist_ok=True)
        (whole / name).write_text("ours")
    assert sums.verify(whole, said) == ["configs/appliance.yaml"]


@pytest.mark.parametrize("line", ["0" * 64 + "  ../outside", "0" * 64 + "  /etc/passwd", "0" * 63 + "  Makefile", "x"])
def test_a_record_that_sha256sum_would_not_write_is_refused(whole: Path, line: str) -> None:
    with (whole / sums.NAME).open("a") as record:
        record.write(f"{line}\n")
    with pytest.raises(BundleInvalid, match=r"SHA256SUMS, line 8, isn't a checksum"):
        sums.verify(whole, said)


def test_a_folder_without_a_record_is_no_bundle(whole: Path) -> None:
    (whole / sums.NAME).unlink()
    with pytest.raises(BundleInvalid, match="no whole bundle"):
        sums.verify(whole, said)
