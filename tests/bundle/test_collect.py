"""Bundles of a small checkout, made by real pip and git, and taken by the real Makefile."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from appliance.bundle import about, collect, sbom, sums
from appliance.errors import BundleFailed, CardInvalid, PreparationFailed
from appliance.weights import manifest
from appliance.weights.adapters import adapters
from tests.bundle.conftest import commit, pinned, write_wheel
from tests.weights.conftest import write_card, write_checkpoint

Make = Callable[..., collect.Made]


def install(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`make install-offline`, to whatever end."""
    return run_make(folder, "install-offline", *arguments)


def run_make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`make` with nothing in the environment."""
    return subprocess.run(
        ["make", *arguments],
        cwd=folder, env={"PATH": os.defpath, "HOME": str(folder)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_it_holds_everything_and_checks_itself(original: collect.Made) -> None:
    made, checkout = original, original.folder.with_name("checkout")
    assert sums.verify(made.folder, print) == []
    assert made.sha256 == hashlib.sha256((made.folder / sums.NAME).read_bytes()).hexdigest()
    assert made.notes == ()
    assert sorted(file.name for file in (made.folder / "offline" / "wheels").iterdir()) == [
        "licensed-1.0-py3-none-any.whl",
        "native-1.0-cp311-cp311-manylinux_2_31_x86_64.whl",
        "plain-1.0-py3-none-any.whl",
    ]
    told = about.read(made.folder)
    assert (told.device, told.glibc, told.models) == ("cuda", "2.31", ("tiny",))
    assert re.fullmatch(r"\d+\.\d+\.\d+\+g[0-9a-f]{12}", told.version)
    assert (made.folder / "models/tiny/weights/model.safetensors").is_file()
    assert not (made.folder / "models/tiny/incoming").exists()
    for name in ("Makefile", "appliance/app.py", "configs/locks/uv.txt", "configs/appliance.yaml"):
        assert (made.folder / name).read_bytes() == (checkout / name).read_bytes()
    assert not list(made.folder.parent.glob("*.part"))
    assert not list(made.folder.glob("offline/.*"))


def test_its_bill_of_materials_is_valid_and_complete(original: collect.Made) -> None:
    text = (original.folder / sbom.NAME).read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    components = {each["name"]: each for each in json.loads(text)["components"]}
    assert sorted(components) == ["licensed", "native", "plain", "tiny"]
    assert components["licensed"]["licenses"] == [{"expression": "Apache-2.0 OR MIT"}]
    assert [each["value"] for each in components["licensed"]["properties"]] == ["gateway", "engine-cuda"]


def test_no_path_and_no_address_of_where_it_was_made_is_in_it(original: collect.Made, unpacked: Path) -> None:
    shutil.rmtree(unpacked / "appliance")  # the code itself speaks of addresses
    (unpacked / "Makefile").unlink()
    said = b"".join(file.read_bytes() for file in unpacked.rglob("*") if file.is_file())
    assert str(original.folder.parent).encode() not in said
    assert re.findall(rb"https?://[^\s\"]+", said) == [b"http://cyclonedx.org/schema/bom-1.6.schema.json"]


def test_an_archive_holds_all_of_it_and_nobodys_name(unpacked: Path, tmp_path: Path) -> None:
    archive = collect.archive(unpacked, print)
    assert archive == tmp_path / "unpacked.tar"
    with tarfile.open(archive) as tar:
        assert {(each.uid, each.gid, each.uname, each.gname) for each in tar} == {(0, 0, "", "")}
        tar.extractall(tmp_path / "there", filter="data")
    assert sums.verify(tmp_path / "there" / "unpacked", print) == []


def test_what_git_does_not_keep_stays_behind_and_what_has_changed_is_told(bundle: Make, checkout: Path) -> None:
    (checkout / "private.key").write_text("secret")
    (checkout / "configs" / "appliance.yaml").open("a").write("\n")
    made = bundle()
    assert not (made.folder / "private.key").exists()
    assert (made.folder / "configs/appliance.yaml").read_text().endswith("\n\n")
    assert about.read(made.folder).version.endswith(".changed")
    assert [note.partition(" ")[0] for note in made.notes] == ["the", "left"]
    assert "private.key" in made.notes[1]


def test_a_failed_run_leaves_nothing_that_looks_finished_and_the_next_goes_on(
    bundle: Make, shelf: Path, tmp_path: Path
) -> None:
    native = next(shelf.glob("native*"))
    native.rename(tmp_path / native.name)
    with pytest.raises(BundleFailed, match=r"pip couldn't fetch.*native==1\.0.*What has arrived is kept"):
        bundle()
    assert not (tmp_path / "made").exists()
    part = tmp_path / "made.part"
    assert not (part / sums.NAME).exists()
    assert (part / "offline/wheels/plain-1.0-py3-none-any.whl").is_file()
    (part / "appliance").mkdir()
    (part / "appliance" / "left.py").write_text("of the failed run")
    write_wheel(part / "offline" / "wheels", "plain", "Summary: damaged")

    shutil.move(tmp_path / native.name, native)
    assert sums.verify(bundle().folder, print) == []
    assert not (tmp_path / "made" / "appliance" / "left.py").exists()


def test_a_package_that_is_not_the_locked_one_is_refused(bundle: Make, shelf: Path, tmp_path: Path) -> None:
    write_wheel(shelf, "plain", "Summary: poisoned")
    with pytest.raises(BundleFailed, match="pip couldn't fetch"):
        bundle()
    assert not (tmp_path / "made").exists()


def test_a_link_in_the_checkout_is_refused(bundle: Make, checkout: Path) -> None:
    (checkout / "configs" / "more.yaml").symlink_to("/etc/hostname")
    commit(checkout)
    with pytest.raises(BundleFailed, match=r"configs/more\.yaml is a link"):
        bundle()


@pytest.mark.parametrize(
    ("change", "error", "expected"),
    [
        (lambda checkout: (checkout.parent / "made").mkdir(), BundleFailed, "is there already. Remove it, or name"),
        (lambda checkout: shutil.rmtree(checkout / ".git"), BundleFailed, "a bundle is made of a git checkout"),
        (lambda checkout: (checkout / ".venvs/uv").unlink(), BundleFailed, "Run `make gateway`"),
        (lambda checkout: (checkout / "models/tiny/card.yaml").unlink(), CardInvalid, "there is no model 'tiny'"),
        (lambda checkout: shutil.rmtree(checkout / "models/tiny/incoming"), PreparationFailed, "isn't there. Put the"),
        (lambda checkout: (checkout.parent / "made.part").write_text(""), BundleFailed, "Not a directory. Mend that"),
    ],
    ids=["output", "git", "pip", "card", "weights", "part"],
)
def test_what_is_missing_is_said(
    bundle: Make, checkout: Path, change: Callable[[Path], object], error: type[Exception], expected: str
) -> None:
    change(checkout)
    with pytest.raises(error, match=expected):
        bundle()
    assert not (checkout.parent / "made" / sums.NAME).exists()


def test_sets_can_be_left_out(bundle: Make, shelf: Path, checkout: Path) -> None:
    (checkout / "configs" / "locks" / "dev.txt").write_text(pinned(write_wheel(shelf, "tester")))
    commit(checkout)
    assert (bundle("all", without=()).folder / "offline/wheels/tester-1.0-py3-none-any.whl").is_file()
    less = bundle("less").folder
    assert about.read(less).sets == ("uv", "gateway", "engine-cuda")
    assert not (less / "offline/wheels/tester-1.0-py3-none-any.whl").exists()


def test_installing_begins_with_the_checksums(unpacked: Path) -> None:
    wheel = unpacked / "offline/wheels/plain-1.0-py3-none-any.whl"
    data = bytearray(wheel.read_bytes())
    data[50] ^= 1
    wheel.write_bytes(data)
    for _ in range(2):
        done = install(unpacked, "DEVICE=cuda")
        assert done.returncode != 0
        assert "offline/wheels/plain-1.0-py3-none-any.whl isn't the file that was bundled" in done.stderr
        assert not (unpacked / ".venvs").exists()


def test_installing_says_when_the_machine_does_not_fit(unpacked: Path) -> None:
    assert "no driver is loaded here" in install(unpacked, "DEVICE=cpu").stderr
    assert "Python 3.11 is needed" in install(unpacked, "DEVICE=cuda", "PYTHON=").stderr
    (unpacked / sums.NAME).unlink()
    assert "no whole bundle" in install(unpacked, "DEVICE=cuda").stderr


def test_what_was_left_out_is_said_where_it_is_wanted(unpacked: Path) -> None:
    uv = unpacked / ".venvs" / "uv" / "bin" / "uv"
    uv.parent.mkdir(parents=True)
    uv.touch()
    (unpacked / ".venvs" / ".checked").touch()
    assert "This bundle was made without dev" in run_make(unpacked, "dev").stderr


def test_installing_where_there_is_no_bundle_says_how_to_get_one(checkout: Path) -> None:
    done = install(checkout)
    assert done.returncode != 0
    assert "appliance bundle --output FOLDER" in done.stderr


def test_unpacking_over_an_older_one_keeps_what_is_the_sites_own(
    bundle: Make, checkout: Path, unpacked: Path, tmp_path: Path
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "offline.md").read_text()
    (lines,) = re.findall(r"```sh\ncd /opt/appliance\n(.*?)make install-offline.*?```", page, re.DOTALL)
    (checkout / "appliance" / "added.py").touch()
    (checkout / "configs" / "added.yaml").touch()
    (checkout / "appliance" / "app.py").unlink()
    commit(checkout)
    archive = collect.archive(bundle("new").folder, print)
    for name in ("state/keys.json", "models/ours/card.yaml", "configs/appliance.yaml"):
        (unpacked / name).parent.mkdir(exist_ok=True)
        (unpacked / name).write_text("ours")

    script = lines.replace("/media/usb/appliance-0.2.0.tar", str(archive))
    subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=unpacked, check=True)

    assert sums.verify(unpacked, print) == ["configs/appliance.yaml"]
    assert about.read(unpacked).version == about.read(tmp_path / "new").version
    assert (unpacked / "appliance/added.py").is_file()
    assert not (unpacked / "appliance/app.py").exists()
    assert (unpacked / "state/keys.json").read_text() == (unpacked / "models/ours/card.yaml").read_text() == "ours"


def test_it_carries_what_stands_beside_a_models_weights(bundle: Callable[..., collect.Made], checkout: Path) -> None:
    model = checkout / "models" / "tiny"
    config = {"peft_type": "LORA", "r": 4}
    for folder, name in ((model / "adapters" / "law", "adapter_config.json"), (model / "evals", "ours.yaml")):
        folder.mkdir(parents=True)
        (folder / name).write_text(json.dumps(config))
    manifest.record(model / "adapters" / "law", {"adapter_of": "tiny"}, "lora", {})
    (model / "adapters" / ".adding").mkdir()
    (checkout / "models" / "evals").mkdir()
    (checkout / "models" / "evals" / "house.yaml").write_text("cases: []\n")
    texts = model / "calibration.txt"
    texts.write_text("A text.\n")
    said = {"file": texts.name, "sha256": hashlib.sha256(texts.read_bytes()).hexdigest()}
    write_checkpoint(model / "incoming", quantization={"quant_method": "awq"})
    write_card(model, quantization="awq", calibration=said)
    made = bundle()
    there = made.folder / "models"
    for name in ("tiny/evals/ours.yaml", "tiny/calibration.txt", "evals/house.yaml"):
        assert (there / name).read_bytes() == (checkout / "models" / name).read_bytes()
    assert adapters(there / "tiny")["law"].rank == 4
    assert not (there / "tiny" / "adapters" / ".adding").exists()
    assert sums.verify(made.folder, print) == []
