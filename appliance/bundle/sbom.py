"""The software bill of materials: every package and model of a bundle, in CycloneDX 1.6."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from appliance.bundle.about import About

NAME = "offline/sbom.cdx.json"


@dataclass(frozen=True, slots=True)
class Licence:
    """What a licence is called; `spdx` says that this is an SPDX expression."""

    text: str
    spdx: bool


@dataclass(frozen=True, slots=True)
class Package:
    """A package. `kind` is its purl's type with the namespace (`pypi`, `deb/debian`), `qualifiers` its end."""

    name: str
    version: str
    sha256: str
    kind: str = "pypi"
    qualifiers: str = ""
    sets: tuple[str, ...] = ()
    licence: Licence | None = None


@dataclass(frozen=True, slots=True)
class Weights:
    """A prepared model: its files as paths with the SHA-256 of each, and an SPDX expression as its licence."""

    name: str
    title: str
    description: str
    licence: str
    files: tuple[tuple[str, str], ...]


def document(about: About, packages: Iterable[Package], models: Iterable[Weights]) -> dict[str, Any]:
    """The bill as plain data, fit for JSON. Its serial number is derived from what it lists."""
    components = [*map(_package, packages), *map(_weights, models)]
    appliance = {
        "type": "application",
        "bom-ref": "appliance",
        "name": "inference-appliance",
        "version": about.version,
    }
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_OID, repr((about, components))).urn,
        "version": 1,
        "metadata": {
            "timestamp": about.made,
            "component": appliance,
            "properties": [
                {"name": f"appliance:{name}", "value": value}
                for name, value in (("device", about.device), ("python", about.python), ("machine", about.machine))
            ],
        },
        "components": components,
        "dependencies": [{"ref": "appliance", "dependsOn": [each["bom-ref"] for each in components]}],
    }


def _package(package: Package) -> dict[str, Any]:
    name = re.sub(r"[-_.]+", "-", package.name).lower() if package.kind == "pypi" else package.name
    purl = f"pkg:{package.kind}/{name}@{quote(package.version, safe='.')}"
    purl += f"?{package.qualifiers}" if package.qualifiers else ""
    return {
        "type": "library",
        "bom-ref": purl,
        "name": package.name,
        "version": package.version,
        "purl": purl,
        "hashes": [_hash(package.sha256)],
        **({"licenses": [_licence(package.licence)]} if package.licence else {}),
        **({"properties": [{"name": "appliance:set", "value": each} for each in package.sets]} if package.sets else {}),
    }


def _weights(model: Weights) -> dict[str, Any]:
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model/{model.name}",
        "name": model.name,
        "description": f"{model.title}. {model.description}",
        "licenses": [_licence(Licence(model.licence, spdx=True))],
        "components": [
            {"type": "file", "bom-ref": f"model/{model.name}/{name}", "name": name, "hashes": [_hash(digest)]}
            for name, digest in model.files
        ],
    }


def _hash(digest: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": digest}


def _licence(licence: Licence) -> dict[str, Any]:
    return {"expression": licence.text} if licence.spdx else {"license": {"name": licence.text}}
