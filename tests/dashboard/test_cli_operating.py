"""`switchgear override` and `status` beside a gateway that runs: an act reaches it, and everybody sees who did it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dashboard import cli
from tests.dashboard.running import MODELS, Place, ask, fetch, serving
from tests.patience import seconds_until

Output = pytest.CaptureFixture[str]
SECOND_MANAGER = '[managers.other]\nprimary = "flash"\nsecondary = "pro"\n'


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    body = '[providers.models]\nkind = "simulated"\n' + MODELS + SECOND_MANAGER
    place = Place.make(tmp_path_factory.mktemp("place"), body=body)
    with serving(place):
        yield place


def act(place: Place, *arguments: str) -> int:
    return cli.run(["override", *arguments, "--manager", "chat", "--config", str(place.path)])


def test_an_override_reaches_the_gateway_within_a_second_and_so_does_its_end(place: Place, capsys: Output) -> None:
    assert ask(place)["x-switchgear-role"] == "primary"
    assert act(place, "set", "secondary", "--reason", "maintenance", "--for", "30m", "--by", "ana") == 0
    assert capsys.readouterr().out.startswith("chat: pinned to secondary for 30 min (epoch ")
    assert seconds_until(lambda: ask(place)["x-switchgear-role"] == "secondary") < 1.0

    assert cli.run(["status", "--config", str(place.path)]) == 0
    assert "pinned to secondary by ana, 29 min" in capsys.readouterr().out

    assert act(place, "clear", "--reason", "done") == 0
    assert "chat: automatic again; " in capsys.readouterr().out
    assert act(place, "clear", "--reason", "done") == 0
    assert "already automatic; nothing changed" in capsys.readouterr().out


def test_a_number_alone_is_seconds_as_in_the_configuration(place: Place, capsys: Output) -> None:
    """`--for 90` was refused, with the advice to leave out quotes that were not there."""
    assert act(place, "set", "secondary", "--reason", "r", "--for", "90", "--json") == 0
    assert json.loads(capsys.readouterr().out)["override"]["ttl"] == 90
    assert act(place, "clear", "--reason", "done") == 0


def test_a_strict_pin_says_so_and_speaks_json(place: Place, capsys: Output) -> None:
    assert act(place, "set", "secondary", "--reason", "test", "--strict", "--json") == 0
    body = json.loads(capsys.readouterr().out)
    assert body["override"]["strict"]
    assert body["override"]["ttl"] == 3600
    assert act(place, "clear", "--reason", "test", "--json") == 0
    assert json.loads(capsys.readouterr().out)["override"] is None


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["set", "primary"], "Missing option '--reason'."),
        (["set", "primary", "--reason", "  "], "a reason is required: it is what the next person on call reads"),
        (["set", "third", "--reason", "r"], "Invalid value for 'primary|secondary': 'third' is not one of"),
        (["set", "primary", "--reason", "r", "--for", "soon"], "--for: 'soon' is not a duration: write"),
        (["set", "primary", "--reason", "r", "--for", "nan"], "--for: 'nan' is not a duration: write"),
        (["set", "primary", "--reason", "r", "--for", "0s"], "an act must last more than 0 s and at most 30 d"),
        (["set", "primary", "--reason", "r", "--for", "31d"], "an act must last more than 0 s and at most 30 d"),
    ],
)
def test_a_wrong_act_is_one_line_and_exit_code_2(place: Place, arguments: list[str], line: str, capsys: Output) -> None:
    assert act(place, *arguments) == 2
    output = capsys.readouterr()
    assert output.err.startswith(f"switchgear: {line}")
    assert output.err.count("\n") == 1
    assert output.out == ""


def test_an_act_on_an_epoch_that_has_moved_is_refused_with_1(place: Place, capsys: Output) -> None:
    assert act(place, "set", "primary", "--reason", "late", "--epoch", "99999") == 1
    assert "the agreement has moved from epoch 99999 to" in capsys.readouterr().err


def test_an_unknown_manager_names_the_known_ones(place: Place, capsys: Output) -> None:
    arguments = ["override", "set", "primary", "--reason", "r", "--manager", "chut", "--config", str(place.path)]
    assert cli.run(arguments) == 2
    said = capsys.readouterr().err
    assert said == "switchgear: there is no manager named 'chut'; this configuration has chat, other\n"


def test_with_several_managers_one_must_be_named(place: Place, capsys: Output) -> None:
    assert cli.run(["override", "set", "primary", "--reason", "r", "--config", str(place.path)]) == 2
    said = capsys.readouterr().err
    assert said == "switchgear: name the manager with --manager: there are chat, other\n"


def test_status_shows_every_manager_breaker_and_instance(place: Place, capsys: Output) -> None:
    ask(place)
    assert cli.run(["status", "--config", str(place.path)]) == 0
    said = capsys.readouterr().out
    assert "chat  serving from " in said
    assert "other  serving from primary (gemini-2.5-flash)" in said
    assert "● closed" in said
    assert "1 instance: " in said


@pytest.mark.parametrize("columns", ["30", "60", "200"])
def test_status_and_doctor_fit_any_terminal(
    place: Place, columns: str, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    for command in ("status", "doctor"):
        assert cli.run([command, "--config", str(place.path)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= int(columns)
        assert "…" not in "".join(lines), "nothing is cut off"


def test_status_as_json_is_what_the_control_api_says(place: Place, capsys: Output) -> None:
    assert cli.run(["status", "--json", "--config", str(place.path)]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body.keys() == fetch(f"{place.url}/api/v1/status")[1].keys()
    assert body["managers"].keys() == {"chat", "other"}


def test_status_of_a_store_that_was_never_written_creates_none(tmp_path: Path, capsys: Output) -> None:
    place = Place.make(tmp_path)
    assert cli.run(["status", "--config", str(place.path)]) == 1
    assert capsys.readouterr().err == (
        f"switchgear: there is no database at {tmp_path / 'switchgear.db'} yet: "
        "start Switchgear once, or correct store.url\n"
    )
    assert not (tmp_path / "switchgear.db").exists()
