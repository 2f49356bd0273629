from __future__ import annotations

from engine.core.toolcalls import whole_calls


def _piece(index: int | None, **fields: object) -> dict[str, object]:
    return {**({} if index is None else {"index": index}), **fields}


def test_the_pieces_of_one_call_are_joined_by_their_index() -> None:
    pieces = [
        _piece(0, id="a", type="function", function={"name": "weather", "arguments": ""}),
        _piece(1, id="b", type="function", function={"name": "time", "arguments": '{"z'}),
        _piece(0, function={"arguments": '{"place": '}),
        _piece(1, function={"arguments": 'one": 1}'}),
        _piece(0, function={"arguments": '"Rome"}'}),
    ]
    assert whole_calls(pieces) == (
        {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"place": "Rome"}'}},
        {"id": "b", "type": "function", "function": {"name": "time", "arguments": '{"zone": 1}'}},
    )


def test_a_piece_without_an_index_is_a_whole_call() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert whole_calls([call, call]) == (call, call)


def test_what_is_null_or_repeated_changes_nothing() -> None:
    pieces = [
        _piece(0, id="a", function={"name": "f", "arguments": None}),
        _piece(0, id=None, type=None, function={"name": "f", "arguments": "{}"}),
        _piece(0, function=None),
    ]
    assert whole_calls(pieces) == ({"id": "a", "function": {"name": "f", "arguments": "{}"}},)


def test_calls_that_all_have_the_index_0_stay_apart() -> None:
    one = {"id": "a", "function": {"name": "f", "arguments": '{"x": 1}'}}
    two = {"id": "b", "function": {"name": "f", "arguments": '{"y": 2}'}}
    assert whole_calls([_piece(0, **one), _piece(0, **two)]) == (one, two)


def test_an_id_that_is_made_up_for_every_piece_begins_no_call() -> None:
    pieces = [
        _piece(0, id="a", function={"name": "f", "arguments": "{"}),
        _piece(0, id="b", function={"arguments": "}"}),
    ]
    assert [call["function"] for call in whole_calls(pieces)] == [{"name": "f", "arguments": "{}"}]


def test_no_pieces_are_no_calls() -> None:
    assert whole_calls([]) == ()
