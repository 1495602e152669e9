"""Roles: least privilege, one table in code and in docs."""

from __future__ import annotations

import pytest

from appliance import reference
from appliance.accounts import roles
from appliance.accounts.roles import PERMISSIONS, Permission
from appliance.audit import reveals
from appliance.core import Caller, Role
from appliance.errors import Forbidden
from tests.fakes.house import ROOT


def test_every_role_is_in_the_table_and_every_permission_is_somebodys() -> None:
    assert set(PERMISSIONS) == set(Role)
    assert frozenset().union(*PERMISSIONS.values()) == set(Permission)


def test_who_administers_does_not_ask_and_who_audits_does_nothing_else() -> None:
    assert [role for role in Role if Permission.ASK in PERMISSIONS[role]] == [Role.USER, Role.POWER_USER]
    assert PERMISSIONS[Role.AUDITOR] == {Permission.READ_AUDIT, Permission.REVEAL, Permission.EXPLAIN_POLICY}
    assert [role for role in Role if Permission.READ_AUDIT in PERMISSIONS[role]] == [Role.AUDITOR]
    assert PERMISSIONS[Role.USER] < PERMISSIONS[Role.POWER_USER]
    assert PERMISSIONS[Role.SUPER_ADMIN] - PERMISSIONS[Role.ADMIN] == {Permission.GRANT_ROLES, Permission.REVEAL}


def test_to_reveal_a_person_takes_two_roles_of_which_nobody_has_both() -> None:
    assert [role for role in Role if Permission.REVEAL in PERMISSIONS[role]] == [Role.SUPER_ADMIN, Role.AUDITOR]
    assert set(reveals.ROLES) == {Role.SUPER_ADMIN, Role.AUDITOR}


def test_only_a_super_admin_grants_more_than_it_has() -> None:
    assert roles.grantable(Role.SUPER_ADMIN) == set(Role)
    assert roles.grantable(Role.ADMIN) == {Role.USER, Role.POWER_USER}
    for role in (Role.USER, Role.POWER_USER, Role.AUDITOR):
        assert roles.grantable(role) == frozenset()


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("permission", Permission)
def test_what_is_not_in_the_table_is_forbidden_and_all_refusals_look_alike(role: Role, permission: Permission) -> None:
    caller = Caller("key_1", role)
    if permission in PERMISSIONS[role]:
        roles.require(caller, permission)
        return
    with pytest.raises(Forbidden) as caught:
        roles.require(caller, permission)
    assert (str(caught.value), caught.value.code) == (str(roles.not_allowed("else")), "not_allowed")
    assert caught.value.reason == f"role {role} may not {permission}", "for the log"


def test_the_table_in_the_docs_is_the_one_in_code() -> None:
    for page in ("api.md", "accounts.md"):
        assert reference.roles() in (ROOT / "docs" / page).read_text(), page
