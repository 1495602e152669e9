"""How a running appliance is, for metrics and for the record of incidents."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from appliance import incidents
from appliance.accounts.identity import Identity
from appliance.accounts.office import Office
from appliance.egress.assurance import Assurance
from appliance.engines.fleet import Fleet
from appliance.incidents import Standing, Trouble
from appliance.privacy.guard import Guard
from appliance.probing import Probing
from appliance.seal.parts import Seal


@dataclass(frozen=True, slots=True)
class Vitals:
    """Looks at the parts of an appliance anew each time that it is asked."""

    fleet: Fleet
    office: Office
    identity: Identity | None
    guard: Guard | None
    seal: Seal
    probing: Probing
    assurance: Assurance

    def missing(self) -> Iterable[tuple[str, int]]:
        """For metrics: (place, number of parts that its seal lacks)."""
        yield "gateway", len(self.seal.missing)
        for place, seal in self.probing.seals().items():
            yield place, len(seal.missing)

    def proof(self) -> tuple[bool, float] | None:
        """For metrics: whether the last verification held and is not overdue, and when it was (seconds since 1970)."""
        last = self.assurance.last
        return None if last is None else (last.holds and not self.assurance.overdue, last.timestamp)

    def failures(self) -> int:
        """For metrics: verifications so far that did not hold."""
        return self.assurance.failures

    def standing(self) -> Standing:
        """For the record of incidents."""
        engines = {name: served.engine for name, served in self.fleet.served.items() if served.engine is not None}
        troubles = {
            Trouble(incidents.ENGINE, name): incidents.plain(engine.reason)
            for name, engine in engines.items()
            if engine.reason is not None
        }
        if (last := self.assurance.last) is not None and not last.holds:
            troubles[Trouble(incidents.SEAL)] = ", ".join(last.failed)
        if self.assurance.overdue:
            troubles[Trouble(incidents.OVERDUE)] = ""
        if not self.office.bookkeeper.describe()["well"]:
            troubles[Trouble(incidents.BOOKS)] = ""
        if self.guard is not None and self.guard.describe()["gone"]:
            troubles[Trouble(incidents.GATE)] = ""
        if self.identity is not None and self.identity.trouble is not None:
            troubles[Trouble(incidents.IDENTITY)] = incidents.plain(self.identity.trouble)
        return Standing(troubles, {name: engine.starts - engine.comebacks for name, engine in engines.items()})

    def memory(self) -> Iterable[tuple[str, str, float]]:
        """For metrics: (model, version, bytes of main memory that its engine holds)."""
        return self.fleet.account.described() if self.fleet.account is not None else ()

    def states(self) -> Iterable[tuple[str, str, int, int]]:
        """For metrics: (model, state, starts, requests in flight)."""
        for name, served in self.fleet.served.items():
            if served.engine is not None:
                yield name, served.engine.state, served.engine.starts, served.engine.leases
