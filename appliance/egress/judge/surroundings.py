"""Rules on what lies around the seals: other services of this host, its files, and allowed destinations."""

from __future__ import annotations

from appliance.config import may_be_private
from appliance.egress.findings import Check, Findings
from appliance.egress.judge.words import RESTART, Wrong, check, count, is_engine, sealed


def host_sockets(findings: Findings) -> Check:
    """No sealed process reaches a service that would send for it, but those that the config names."""
    allowed = [each for each in findings.host_sockets if each.configured and not is_engine(each.place)]
    others = [each for each in findings.host_sockets if each not in allowed]
    named = ", ".join(sorted({each.path for each in allowed})) or "none"
    seen = f"{count(len(others), 'socket')} of other services within reach; named in the config: {named}"

    def wrong() -> Wrong:
        for each in others:
            yield (
                f"{each.place} can reach {each.path}, where {each.owner or 'another process'} listens; move that "
                "socket out of the folders that the appliance is given, and start the appliance again"
            )

    return check("host_sockets", "No service of this host can be asked to send", seen, wrong())


def mounts(findings: Findings) -> Check:
    """Sealed processes see nothing of the host's files under a name that the seal doesn't give."""
    places = {process.place for process in sealed(findings)}
    seen = f"{count(len(findings.mounts), 'unexpected mount')} in {count(len(places), 'place')}"
    if findings.remote:
        listed = sorted({f"{each.path} ({each.source})" for each in findings.remote})
        seen += f"; only read, and perhaps from another host: {', '.join(listed)}"
    wrong = (f"{each.place}: {each.path} is {each.source}; {RESTART}" for each in findings.mounts)
    return check("mounts", "Sealed processes see no part of this host that they shouldn't", seen, wrong)


def destinations(findings: Findings) -> Check:
    """What may be reached is what the mode allows: in-house on private addresses only, providers over TLS only."""
    listed = ", ".join(f"{to.name} ({to.kind}): {to.address}" for to in findings.destinations)
    seen = f"egress.mode {findings.mode}; {listed or 'no destination at all'}"

    def wrong() -> Wrong:
        for to in findings.destinations:
            if to.kind == "in-house":
                for address in to.resolved:
                    if not may_be_private(address):
                        yield (
                            f"{to.name} is meant to be in-house, but {to.address} is {address}, a public address; "
                            "correct the name server or the config (connections there are refused meanwhile)"
                        )
            elif findings.mode == "deny":
                yield f"{to.name} leads to the provider {to.address} in mode deny; take it out of the config"
            elif not to.tls:
                yield f"{to.name} leads to {to.address} without TLS; write https:// in the config"

    return check("destinations", "What may be reached is what the config allows", seen, wrong())


def trouble(findings: Findings) -> Check:
    """Everything could be looked at."""
    seen = f"{count(len(findings.trouble), 'thing')} could not be looked at"
    return check("trouble", "Everything could be looked at", seen, iter(findings.trouble))
