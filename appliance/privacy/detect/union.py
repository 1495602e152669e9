"""Finds of many detectors made into one list without overlaps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from appliance.privacy.kinds import Kind, Span

_PRIORITY = {kind: number for number, kind in enumerate((
    Kind.SECRET, Kind.CLIENT, Kind.EMPLOYEE, Kind.PROJECT, Kind.EMAIL, Kind.BANK_ACCOUNT, Kind.CARD, Kind.TAX_ID,
    Kind.SOCIAL_SECURITY, Kind.HEALTH_INSURANCE, Kind.ID_DOCUMENT, Kind.PHONE, Kind.URL, Kind.IP, Kind.PLATE,
    Kind.DATE_OF_BIRTH, Kind.REGISTER, Kind.REFERENCE, Kind.ADDRESS, Kind.DATE, Kind.AGE, Kind.POSTCODE,
    Kind.ORGANISATION, Kind.PERSON, Kind.PLACE, Kind.WORD,
))}  # fmt: skip


def union(spans: Iterable[Span]) -> list[Span]:
    """Sorted, none overlapping another: those that overlap become one, of the kind of the longest (then: priority).

    Where one is a secret, all are: a request that holds one stays.
    """
    merged: list[Span] = []
    group: list[Span] = []
    end = -1
    for span in sorted(spans):
        if group and span.start < end:
            group.append(span)
            end = max(end, span.end)
            continue
        if group:
            merged.append(_one(group, end))
        group, end = [span], span.end
    if group:
        merged.append(_one(group, end))
    return merged


def _one(group: Sequence[Span], end: int) -> Span:
    secrets = [span for span in group if span.kind is Kind.SECRET]
    best = min(secrets or group, key=lambda span: (span.start - span.end, _PRIORITY[span.kind], -span.score))
    return Span(group[0].start, end, best.kind, best.score, best.source)
