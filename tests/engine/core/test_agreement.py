"""How documents and votes are written and read back; what is not one is said so."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.agreement import Document, DocumentError, Force, Opinion, Override, Verdict, Vote
from engine.core.messages import Role

FULL = Document(
    epoch=12,
    active=Role.SECONDARY,
    share=0.25,
    stage=1,
    ramp=11,
    override=Override(Role.SECONDARY, True, "why", "ana", 60.0, 1, 12),
    forced={"primary": Force("forced_open", "why", "ben", 60.0, 1, 12)},
    writer="a/1",
    evidence={"down": 2},
)
VOTE = Vote("a/0", "a", 3, Opinion(Verdict.DOWN, 20, 12, "open"), ready=True, stage_ok=2, stage_failed=1, seq=9)

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def test_a_document_is_read_back_as_it_was_written() -> None:
    assert Document.from_json(FULL.to_json()) == FULL
    assert Document.from_json(FULL.to_json().encode()) == FULL


def test_a_vote_is_read_back_as_it_was_written() -> None:
    assert Vote.from_json(VOTE.to_json()) == VOTE


def test_the_next_document_is_one_epoch_later() -> None:
    assert FULL.following(cause="x").epoch == 13


def test_a_document_without_its_last_move_is_read_as_one_that_never_moved() -> None:
    body = json.loads(FULL.to_json())
    del body["moved"], body["moved_by"]
    assert Document.from_json(json.dumps(body)) == FULL


def test_two_documents_are_the_same_when_they_say_the_same() -> None:
    read = Document.from_json(FULL.to_json())
    assert FULL.is_same(read)
    assert replace(FULL, evidence={"roles": ("a",)}).is_same(replace(FULL, evidence={"roles": ["a"]}))
    assert not FULL.is_same(replace(FULL, writer="a/2"))


@pytest.mark.parametrize("version", [2, 99])
def test_a_newer_version_asks_for_an_upgrade(version: int) -> None:
    with pytest.raises(DocumentError, match=rf"newer version \({version} > 1\): upgrade Switchgear here"):
        Document.from_json(json.dumps({"v": version, "everything": "else"}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epoch", "12"), ("epoch", -1), ("epoch", None), ("epoch", True), ("epoch", 1.5), ("active", "third"),
        ("active", None), ("share", "all"), ("share", 1.5), ("share", float("nan")), ("stage", "one"), ("ramp", None),
        ("hold", float("inf")), ("hold", -1.0), ("flaps", 1.5), ("writer", None), ("evidence", []), ("forced", []),
        ("forced", {"primary": {}}), ("moved", -1), ("moved_by", 3),
        ("override", {"role": "primary"}), ("override", "primary"), ("v", "1"),
        ("forced", {"third": json.loads(FULL.to_json())["forced"]["primary"]}),
        ("forced", {"primary": {**json.loads(FULL.to_json())["forced"]["primary"], "state": "ajar"}}),
    ],
)  # fmt: skip
def test_a_wrong_value_is_no_document(name: str, value: Any) -> None:
    body = json.loads(FULL.to_json())
    with pytest.raises(DocumentError, match="not an agreement document"):
        Document.from_json(json.dumps({**body, name: value}))


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, b"\xff\xfe", "null", "[]", "3", '"x"', "{}", '{"v":1}'])
def test_garbage_is_neither_a_document_nor_a_vote(text: str | bytes) -> None:
    with pytest.raises(DocumentError, match="not an agreement document"):
        Document.from_json(text)
    with pytest.raises(DocumentError, match="not a vote"):
        Vote.from_json(text)


@given(st.sampled_from(sorted(json.loads(FULL.to_json()))), anything)
def test_whatever_stands_in_a_document_only_one_error_comes_out(name: str, value: Any) -> None:
    with suppress(DocumentError):
        Document.from_json(json.dumps({**json.loads(FULL.to_json()), name: value}))


@given(st.sampled_from(sorted(json.loads(VOTE.to_json()))), anything)
def test_whatever_stands_in_a_vote_only_one_error_comes_out(name: str, value: Any) -> None:
    with suppress(DocumentError):
        Vote.from_json(json.dumps({**json.loads(VOTE.to_json()), name: value}))
