"""The list of who has access: administrators by name, persons counted."""

from __future__ import annotations

from datetime import UTC, datetime

from appliance.compliance.access import Team, access
from appliance.compliance.chapters import people
from appliance.compliance.collect import Facts
from appliance.compliance.words import Language, Words
from appliance.core import Role
from tests.compliance import sample
from tests.compliance.test_proofs import MONTH
from tests.compliance.text import plain

NOW = sample.NOW.timestamp()


def test_who_administers_is_named_the_mightiest_first() -> None:
    found = access(sample.keys(), MONTH, NOW, pseudonymous=True)
    assert [(one.user, one.role) for one in found.named] == [
        ("Jörg Größer", Role.SUPER_ADMIN), ("", Role.ADMIN), ("Ute Weiß", Role.ADMIN),
        ("Änne Öztürk", Role.AUDITOR),
    ]  # fmt: skip


def test_who_asks_is_counted_by_team_and_named_only_without_the_mode() -> None:
    found = access(sample.keys(), MONTH, NOW, pseudonymous=True)
    assert found.teams["Vertrieb"] == Team(keys=14, persons=14, programs=0, endless=5)
    assert found.teams[""].persons == 1
    assert found.teams["Büro & Empfang"] == Team(keys=6, persons=5, programs=1, endless=3)
    assert "person" not in repr(found.teams).replace("persons", "")
    open_ = access(sample.keys(), MONTH, NOW, pseudonymous=False)
    assert open_.teams["Büro & Empfang"].users == [f"person{number}" for number in range(14, 19)]


def test_what_came_and_went_in_the_month_is_counted_and_what_never_expires() -> None:
    found = {each.role: each for each in access(sample.keys(), MONTH, NOW, pseudonymous=True).changes}
    user = found[Role.USER]
    assert (user.created, user.revoked, user.expired, user.active, user.endless) == (0, 1, 1, 20, 8)
    assert found[Role.AUDITOR].created == 1
    assert found[Role.POWER_USER].active == 1


def test_no_key_no_change_and_no_team_is_said() -> None:
    found = access([], MONTH, NOW, pseudonymous=True)
    assert (found.named, found.teams, found.changes) == ([], {}, [])


def test_in_the_mode_of_the_works_council_no_person_who_asks_is_in_the_report(good: Facts) -> None:
    words = Words(Language.ENGLISH, good.month.zone)
    text = plain(people.access(good, words))
    assert "Jörg Größer" in text
    days = {words.day(at) for one in good.access.named for at in (one.created, one.expires) if at is not None}
    assert [day for day in days if day in text] == [], "the day joins a name with a record of the log"
    assert words.month(good.access.named[0].created) in text
    assert "person1" not in text
    assert "person1" not in repr(good.log)


def test_a_revoked_key_is_no_expired_one() -> None:
    before = datetime(2026, 11, 10, tzinfo=UTC).timestamp()
    every = sample.keys()
    records = [record for record in every if record.user == "leaver"]
    found = access(records, MONTH, before, pseudonymous=True)
    assert [(each.revoked, each.expired, each.active) for each in found.changes] == [(1, 0, 0)]
