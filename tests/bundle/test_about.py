from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from appliance.bundle import about
from appliance.bundle.about import About, Machine
from appliance.errors import BundleInvalid

BUNDLE = About("0.1.0+gabc", "2026-11-22T09:00:00+00:00", "cpu", "3.11", "x86_64", "2.34", ("uv",), ("tiny",))
FITS = Machine("3.11", "x86_64", "2.36", "cpu")


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "offline").mkdir()
    BUNDLE.write(tmp_path)
    assert about.read(tmp_path) == BUNDLE


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sets": [], "models": [], "more": 1}'])
def test_what_is_no_bundle_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "offline").mkdir()
    (tmp_path / about.NAME).write_text(text)
    with pytest.raises(BundleInvalid, match="this is no bundle"):
        about.read(tmp_path)


def test_a_machine_that_fits_is_taken() -> None:
    about.check(BUNDLE, FITS)
    about.check(BUNDLE, dataclasses.replace(FITS, glibc="2.100"))
    assert about.this_machine("cpu").glibc.startswith("2.")


@pytest.mark.parametrize(
    ("made", "here", "expected"),
    [
        ({}, {"machine": "aarch64"}, "for x86_64, this machine is aarch64"),
        ({}, {"python": "3.13"}, r"for Python 3\.11, this is 3\.13.*apt install python3 python3-venv.*make PYTHON="),
        ({}, {"glibc": "2.31"}, r"need glibc 2\.34 or newer, this system has 2\.31"),
        ({}, {"glibc": ""}, "has another C library"),
        ({}, {"device": "cuda"}, "has an NVIDIA GPU.*--device cuda.*make DEVICE=cpu install-offline"),
        ({"device": "cuda"}, {}, "no driver is loaded here.*Install the driver, or.*--device cpu"),
    ],
)
def test_a_machine_that_does_not_fit_is_told_why_and_what_to_do(
    made: dict[str, str], here: dict[str, str], expected: str
) -> None:
    with pytest.raises(BundleInvalid, match=expected):
        about.check(dataclasses.replace(BUNDLE, **made), dataclasses.replace(FITS, **here))
