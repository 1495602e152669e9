"""The bill of materials, held against CycloneDX's own schema."""

from __future__ import annotations

import dataclasses
import json

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from appliance.bundle import sbom
from appliance.bundle.sbom import Licence, Package, Weights
from tests.bundle.test_about import BUNDLE

DIGEST = "a" * 64
PACKAGES = [
    Package("torch", "2.13.0+cpu", DIGEST, sets=("engine-cpu", "prepare"), licence=Licence("BSD-3-Clause", spdx=True)),
    Package("Zope.Interface", "8.7", DIGEST, sets=("dev",), licence=Licence("Zope Public License", spdx=False)),
    Package("bare", "1", DIGEST),
    Package("libnuma1", "2.0.16-1", DIGEST, kind="deb/debian", qualifiers="arch=amd64"),
]
MODEL = Weights("tiny", "Tiny", "A test's.", "Apache-2.0", (("config.json", DIGEST), ("model.safetensors", "b" * 64)))


def test_it_is_what_the_schema_wants() -> None:
    text = json.dumps(sbom.document(BUNDLE, PACKAGES, [MODEL]))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text.replace("SHA-256", "SHA-0")) is not None


def test_everything_is_in_it_under_the_name_that_scanners_know() -> None:
    bill = sbom.document(BUNDLE, PACKAGES, [MODEL])
    torch, zope, bare, numa, tiny = bill["components"]
    assert [each["purl"] for each in (torch, zope, bare, numa)] == [
        "pkg:pypi/torch@2.13.0%2Bcpu",
        "pkg:pypi/zope-interface@8.7",
        "pkg:pypi/bare@1",
        "pkg:deb/debian/libnuma1@2.0.16-1?arch=amd64",
    ]
    assert torch["hashes"] == [{"alg": "SHA-256", "content": DIGEST}]
    assert torch["licenses"] == [{"expression": "BSD-3-Clause"}]
    assert [each["value"] for each in torch["properties"]] == ["engine-cpu", "prepare"]
    assert zope["licenses"] == [{"license": {"name": "Zope Public License"}}]
    assert "licenses" not in bare
    assert (tiny["type"], tiny["licenses"]) == ("machine-learning-model", [{"expression": "Apache-2.0"}])
    assert [(each["name"], each["hashes"][0]["content"]) for each in tiny["components"]] == list(MODEL.files)
    assert bill["metadata"]["component"]["version"] == BUNDLE.version
    assert bill["dependencies"][0]["dependsOn"] == [each["bom-ref"] for each in bill["components"]]


@pytest.mark.parametrize("changed", [PACKAGES[:2], [dataclasses.replace(PACKAGES[0], sha256="c" * 64), *PACKAGES[1:]]])
def test_the_serial_number_is_that_of_the_content(changed: list[Package]) -> None:
    def serial(packages: list[Package]) -> str:
        return str(sbom.document(BUNDLE, packages, [MODEL])["serialNumber"])

    assert serial(PACKAGES) == serial(list(PACKAGES))
    assert serial(PACKAGES) != serial(changed)
