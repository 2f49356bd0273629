"""Whether a refusal lets one request go to the other model, as a table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.core.breaker import BreakerState
from engine.core.capability import Needs
from engine.core.failover import may_move, may_spill
from engine.core.messages import Role
from engine.core.outcomes import RULES, Category, Cause, Move
from engine.core.policy import (
    ManagerPolicy,
    ModelFacts,
    OnAuthError,
    OnBrokenStream,
    OnContentFilter,
    OnRateLimit,
    SpillPolicy,
)
from engine.core.refusal import Refused
from engine.core.switchboard import Switchboard

POLICY = ManagerPolicy("chat", ModelFacts("pro", "pro", "p"), ModelFacts("flash", "flash", "p"))
ROUTED = replace(POLICY, on_content_filter=OnContentFilter.ROUTE, on_auth_error=OnAuthError.ROUTE)
LIMITED, FILTERED, AUTH = Category.RATE_LIMITED, Category.CONTENT_FILTER, Category.AUTH
HELLO = Needs(3, None, frozenset())


def moves(
    category: Category | None,
    policy: ManagerPolicy = POLICY,
    *,
    from_active: bool = True,
    shown: bool = False,
    resumable: bool = False,
    spills: bool = False,
    final: bool = False,
) -> bool:
    refused = Refused(Role.PRIMARY, Cause.SERVER_ERROR, category, final=final)
    return may_move(refused, policy, from_active=from_active, shown=shown, resumable=resumable, spills=spills)


@pytest.mark.parametrize("category", Category)
def test_what_the_table_says_holds_where_it_leaves_nothing_to_the_policy(category: Category) -> None:
    if RULES[category].move is not Move.BY_POLICY:
        assert moves(category, spills=True) is moves(category) is (RULES[category].move is Move.YES)


def test_a_model_that_was_not_asked_holds_nobody() -> None:
    assert moves(None)


@pytest.mark.parametrize("category", [AUTH, FILTERED])
def test_credentials_and_blocked_prompts_move_only_by_policy(category: Category) -> None:
    assert not moves(category, spills=True)
    assert moves(category, ROUTED)


def test_demand_over_a_limit_moves_only_with_leave() -> None:
    assert not moves(LIMITED, ROUTED)
    assert moves(LIMITED, spills=True)


@pytest.mark.parametrize("category", Category)
def test_a_final_refusal_moves_nobody(category: Category) -> None:
    for from_active in (True, False):
        assert not moves(category, ROUTED, from_active=from_active, shown=True, resumable=True, final=True)


@pytest.mark.parametrize("category", Category)
def test_from_a_trial_of_primary_a_request_comes_back_unless_its_prompt_was_blocked(category: Category) -> None:
    assert moves(category, from_active=False) is (category is not FILTERED)


@pytest.mark.parametrize("from_active", [True, False])
@pytest.mark.parametrize("category", [None, *Category])
def test_text_that_was_shown_is_continued_or_nothing(category: Category | None, from_active: bool) -> None:
    error = replace(POLICY, on_broken_stream=OnBrokenStream.ERROR)
    assert not moves(category, from_active=from_active, shown=True, spills=True)
    assert not moves(category, error, from_active=from_active, shown=True, resumable=True, spills=True)
    assert moves(category, from_active=from_active, shown=True, resumable=True) is (category is not FILTERED)
    assert moves(category, ROUTED, from_active=from_active, shown=True, resumable=True)


def spills(board: Switchboard, now: float = 1.0) -> bool:
    return may_spill(board, board.lines[Role.SECONDARY], HELLO, now)


@pytest.mark.parametrize(("how", "leave"), [(OnRateLimit.SHED, False), (OnRateLimit.FAILOVER, True)])
def test_shed_and_failover_ask_neither_the_budget_nor_the_other_model(how: OnRateLimit, leave: bool) -> None:
    board = Switchboard(replace(POLICY, on_rate_limit=how, spill=SpillPolicy(share=0.0, floor=1)), 0.0)
    board.lines[Role.SECONDARY].breaker.trip(0.0, 0.5, "test")
    assert [spills(board) for _ in range(3)] == [leave] * 3
    assert board.spill.take(1.0, 1)


def test_a_spill_spends_the_share_of_all_instances() -> None:
    board = Switchboard(replace(POLICY, spill=SpillPolicy(share=0.0, floor=4)), 0.0)
    board.instances = 2
    assert [spills(board) for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize("trouble", ["open", "limited", "unavailable", "drifted"])
def test_no_share_is_spent_where_the_other_model_could_not_serve(trouble: str) -> None:
    board = Switchboard(replace(POLICY, spill=SpillPolicy(share=0.0, floor=1)), 0.0)
    other = board.lines[Role.SECONDARY]
    if trouble == "open":
        other.breaker.trip(0.0, 0.5, "test")
    elif trouble == "limited":
        other.throttle.limited(0.0, 30.0, 0.5)
    elif trouble == "unavailable":
        other.refuse(Category.QUOTA_EXHAUSTED, 0.0, 30.0)
    else:
        board.drift.failed(Role.SECONDARY, "json", 0.0)
    assert not spills(board)
    assert board.spill.take(1.0, 1), "the one of this minute is still there"


def test_a_breaker_that_an_operator_closed_takes_spilled_requests() -> None:
    board = Switchboard(replace(POLICY, spill=SpillPolicy(share=0.0, floor=1)), 0.0)
    board.lines[Role.SECONDARY].breaker.force(BreakerState.FORCED_CLOSED, 0.0, "ana")
    assert spills(board)
