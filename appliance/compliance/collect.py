"""What is in the report, gathered from the config, the state folder, the keys and the log. Speaks no language yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from appliance import __version__
from appliance.accounts.keys import KeyRecord
from appliance.audit.record import moment
from appliance.audit.subjects import named
from appliance.compliance import log
from appliance.compliance.access import Access, access
from appliance.compliance.coverage import Coverage, coverage
from appliance.compliance.factsheets import WEIGHTS, Factsheet, factsheets
from appliance.compliance.flows import Flow, flows
from appliance.compliance.month import Month
from appliance.compliance.proofs import Gap, Proofs, proofs
from appliance.compliance.verification import Verification, verified
from appliance.config import Config, Settings
from appliance.errors import AuditFailed


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a report says."""

    host: str
    version: str
    config: Path
    settings: Settings
    month: Month
    made: datetime
    flows: Sequence[Flow]
    proofs: Proofs
    access: Access
    factsheets: Sequence[Factsheet]
    log: log.Log
    verification: Verification
    coverage: Coverage
    names: Mapping[str, str]
    """Of those who did something as administrators or auditors, by pseudonym; whoever was erased has none."""

    @property
    def unproven(self) -> list[tuple[Gap, int]]:
        """The gaps between reports in which requests were asked, and how many."""
        asked = self.log.asked_in
        return [(gap, asked[index]) for index, gap in enumerate(self.proofs.gaps) if asked[index]]

    @property
    def unknowable(self) -> bool:
        """Whether nobody can say any more if requests came between reports."""
        return bool(self.proofs.gaps and self.coverage.gone("intent"))


def gather(
    config: Config,
    keys: Iterable[KeyRecord],
    month: Month,
    *,
    host: str,
    made: datetime,
    say: Callable[[str], None] = lambda _: None,
) -> Facts:
    """Gather it; `say` hears what goes on. A damaged log or ledger is told of, and never raised."""
    settings, state = config.settings, config.state
    reports = proofs(state / "egress", month, settings.egress.verify.every_seconds)
    models = factsheets(config)
    found = log.read(
        state / "audit",
        month.span,
        weights=[sheet.weights[:WEIGHTS] for sheet in models if sheet.weights],
        gaps=[(_moment(gap.due), _moment(gap.until)) for gap in reports.gaps],
        zone=month.zone,
        say=say,
    )
    say("the log is being verified")
    pseudonymous = settings.audit.works_council
    stamps = settings.audit.timestamps
    authority = config.path(stamps.certificate) if stamps else None
    covered = coverage(state / "audit", month.span, settings.audit.retention, made.timestamp(), found.begins)
    return Facts(
        host, __version__, config.file, settings, month, made.replace(microsecond=0), flows(config), reports,
        access(keys, month, made.timestamp(), pseudonymous=pseudonymous), models, found,
        verified(state / "audit", authority), covered, _names(state / "audit-keys", found.administrators),
    )  # fmt: skip


def _names(folder: Path, pseudonyms: Iterable[str]) -> dict[str, str]:
    try:
        name = named(folder)
    except AuditFailed:
        return {}  # then they stand there by pseudonym
    return {each: known for each in pseudonyms if (known := name(each)) is not None}


def _moment(at: datetime) -> str:
    return moment(at.astimezone(UTC).timestamp())
