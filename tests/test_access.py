"""Plans as published, who may do what, and that nobody hands on more than they have."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from itertools import chain, combinations
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnflow_core.access import (
    FAILED_CREDENTIALS,
    ROLE_SCOPES,
    SCOPES,
    Actor,
    actor_for,
    commands,
    permit,
    quotas,
    require_grant,
    require_role_grant,
)
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.limiter import Quota
from learnflow_core.limiter.plans import PLANS
from learnflow_core.model import Account, Mode, Plan, Role

NAMED = frozenset(SCOPES) - {"*"}
EVERYTHING = NAMED | {"what no scope names"}
"""What `*` is the power to do: whatever the named scopes are, and what only `*` is (keys, the account itself)."""

ROLES: tuple[Role, ...] = ("learner", "instructor", "admin")
SCOPE_SETS = [frozenset(some) for some in chain.from_iterable(combinations(SCOPES, n) for n in range(len(SCOPES) + 1))]

scope_sets = st.frozensets(st.sampled_from(sorted(SCOPES)))
roles = st.sampled_from(ROLES)
holders = st.sampled_from([None, *ROLES])


def account(plan: Plan = "starter", per_minute: int | None = None, suspended_at: int | None = None) -> Account:
    return Account("acct_1", "Acme", plan, per_minute, None, suspended_at, 1)


def actor(scopes: Collection[str], role: Role | None = None, mode: Mode = "live") -> Actor:
    """A key with these scopes; with a role, a user whose token has them."""
    if role is None:
        return actor_for(account(), mode=mode, scopes=scopes, key_id="key_1")
    return actor_for(account(), mode=mode, scopes=scopes, user_id="usr_1", role=role)


def meant(scopes: Collection[str]) -> frozenset[str]:
    """What a set of scopes is the power to do, spelt out."""
    return EVERYTHING if "*" in scopes else frozenset(scopes)


def power(scopes: Collection[str], role: Role | None) -> frozenset[str]:
    """What a caller with these scopes has the power to do: a user no more than the role allows."""
    return meant(scopes) if role is None else meant(scopes) & meant(ROLE_SCOPES[role])


def allowed(check: Callable[[], None]) -> bool:
    """Whether the check lets it pass; the one refusal there is to be is `forbidden`."""
    try:
        check()
    except LearnFlowError as error:
        if error.code is not Code.FORBIDDEN:
            raise
        return False
    return True


def grants(granter: Actor, scopes: Collection[str]) -> bool:
    return allowed(lambda: require_grant(granter, scopes))


def refusal(caller: Actor, scope: str | None, roles: Collection[Role] | None) -> Code | None:
    try:
        permit(caller, scope, roles)
    except LearnFlowError as error:
        return error.code
    return None


def test_the_plans_are_the_published_ones() -> None:
    published = {
        "starter": (Quota("minute", 30, 60 * 10**9), Quota("day", 1_000, 86_400 * 10**9)),
        "professional": (Quota("minute", 300, 60 * 10**9), Quota("day", 25_000, 86_400 * 10**9)),
        "enterprise": (Quota("minute", 3_000, 60 * 10**9),),
    }
    assert published == PLANS
    assert {plan: quotas(plan) for plan in get_args(Plan)} == published
    (failed,) = FAILED_CREDENTIALS
    assert (failed.limit, failed.period_ns) == (30, 60 * 10**9)


@given(st.sampled_from(sorted(PLANS)), st.integers(1, 10**9))
def test_an_agreed_rate_replaces_the_minute_and_leaves_the_day(plan: Plan, per_minute: int) -> None:
    minute, *rest = quotas(plan, per_minute)
    assert minute == Quota.per_minute(per_minute)
    assert rest == list(quotas(plan)[1:])


def test_no_requests_at_all_cannot_be_agreed() -> None:
    with pytest.raises(ValueError, match="limit"):
        quotas("enterprise", 0)


def test_an_actor_has_the_quotas_of_its_account_and_shares_them_with_everyone_in_it() -> None:
    assert actor_for(account("enterprise", 12), mode="live", scopes=(), key_id="key_1").quotas == (
        Quota.per_minute(12),
    )
    assert actor(["*"]).quotas == actor([], "learner").quotas == actor([], mode="test").quotas


def test_nobody_acts_for_a_suspended_account() -> None:
    with pytest.raises(LearnFlowError) as caught:
        actor_for(account(suspended_at=1), mode="live", scopes={"*"}, key_id="key_1")
    assert caught.value.code is Code.ACCOUNT_SUSPENDED


def test_idempotency_keys_belong_to_the_user_or_to_all_keys_of_an_account_in_one_mode() -> None:
    assert actor(["*"], "learner").caller_id == "usr_1"
    other_key = actor_for(account(), mode="live", scopes={"users:read"}, key_id="key_2")
    assert actor(["*"]).caller_id == other_key.caller_id
    assert actor(["*"]).caller_id != actor(["*"], mode="test").caller_id


@pytest.mark.parametrize(("role", "sees"), [(None, True), ("admin", True), ("instructor", False), ("learner", False)])
def test_keys_and_admins_see_the_account_and_others_themselves(role: Role | None, sees: bool) -> None:
    assert actor(["*"], role).sees_account is sees


@given(scope_sets, holders, st.none() | st.sampled_from(sorted(SCOPES)), st.none() | st.frozensets(roles))
def test_a_kind_of_caller_is_let_through_exactly_when_scope_and_role_both_allow_it(
    scopes: frozenset[str], role: Role | None, scope: str | None, let_in: frozenset[Role] | None
) -> None:
    expected = None
    if role is not None and (let_in is None or role not in let_in):
        expected = Code.FORBIDDEN
    if scope is not None and not meant([scope]) <= meant(scopes):
        expected = Code.INSUFFICIENT_SCOPE
    assert refusal(actor(scopes, role), scope, let_in) is expected


def test_a_missing_scope_is_named_to_people_and_to_programs() -> None:
    with pytest.raises(LearnFlowError) as caught:
        permit(actor(["users:read"]), "users:write", ROLES)
    assert "users:write" in caught.value.message
    assert caught.value.details == {"scope": "users:write"}


@pytest.mark.parametrize("role", [None, *ROLES])
def test_of_every_set_of_scopes_each_commands_exactly_what_it_has_the_power_to_do(role: Role | None) -> None:
    for scopes in SCOPE_SETS:
        holder = actor(scopes, role)
        assert {scope for scope in SCOPES if commands(holder, scope)} == {
            scope for scope in SCOPES if meant([scope]) <= power(scopes, role)
        }


@given(scope_sets, holders, scope_sets)
def test_nobody_grants_more_than_they_have_and_everybody_what_they_have(
    held: frozenset[str], role: Role | None, granted: frozenset[str]
) -> None:
    assert grants(actor(held, role), granted) == (meant(granted) <= power(held, role))


@given(scope_sets, holders, scope_sets, scope_sets)
def test_what_was_granted_grants_no_more_than_its_granter_could(
    held: frozenset[str], role: Role | None, granted: frozenset[str], granted_on: frozenset[str]
) -> None:
    first = actor(held, role)
    if grants(first, granted) and grants(actor(granted), granted_on):
        assert grants(first, granted_on)


@pytest.mark.parametrize("role", [None, *ROLES])
@pytest.mark.parametrize("made", ROLES)
def test_whoever_gives_a_password_has_all_the_power_that_its_owner_gets(made: Role, role: Role | None) -> None:
    for scopes in SCOPE_SETS:
        makes = allowed(partial(require_role_grant, actor(scopes, role), made, password=True))
        assert makes == (power(["*"], made) <= power(scopes, role))


def test_a_learner_who_cannot_sign_in_is_anyones_to_look_after_and_staff_are_not() -> None:
    narrow = actor(["users:write"], None)
    assert allowed(partial(require_role_grant, narrow, "learner"))
    assert not allowed(partial(require_role_grant, narrow, "instructor"))
    assert not allowed(partial(require_role_grant, narrow, "admin"))


def test_a_refused_grant_names_what_its_granter_lacks() -> None:
    with pytest.raises(LearnFlowError) as caught:
        require_grant(actor(["*"], "instructor"), ["certificates:write", "courses:write", "*"])
    assert caught.value.details == {"scopes": ["*", "certificates:write"]}


def test_the_scopes_are_the_published_words_and_every_role_is_made_of_them() -> None:
    assert set(SCOPES) == {
        "courses:write",
        "users:read",
        "users:write",
        "enrollments:read",
        "enrollments:write",
        "certificates:read",
        "certificates:write",
        "tokens:write",
        "*",
    }
    assert frozenset().union(*ROLE_SCOPES.values()) <= set(SCOPES)
