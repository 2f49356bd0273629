"""The command line answers in lines and exit codes, never with a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from dashboard import cli
from engine.config import Config
from engine.core.errors import ConfigurationError, Overloaded

Make = Callable[..., Config]
Output = pytest.CaptureFixture[str]


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_of_the_table_can_be_imported_and_explains_itself(name: str, capsys: Output) -> None:
    assert cli.run([name, "--help"]) == 0
    assert f"switchgear {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["docter"], 'switchgear: there is no command "docter": did you mean "doctor"?'),
        (["xyz"], 'switchgear: there is no command "xyz": there are up, serve, dashboard'),
        (["doctor", "--jsn"], "switchgear: No such option '--jsn'"),
        (["doctor", "--config"], "switchgear: Option '--config' requires an argument."),
    ],
)
def test_a_wrong_use_is_one_line_and_exit_code_2(arguments: list[str], line: str, capsys: Output) -> None:
    assert cli.run(arguments) == 2
    output = capsys.readouterr()
    assert output.err.startswith(line)
    assert output.err.count("\n") == 1
    assert not output.out


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (ConfigurationError("f: a: wrong\nf: b: wrong"), 2, ["switchgear: f: a: wrong", "switchgear: f: b: wrong"]),
        (Overloaded("both breakers are open"), 1, ["switchgear: both breakers are open"]),
        (KeyboardInterrupt(), 130, []),
        (ZeroDivisionError("a\nb"), 1, None),
    ],
)
def test_whatever_a_command_raises_becomes_lines(
    error: BaseException, code: int, lines: list[str] | None, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli.switchgear, "main", fail)
    assert cli.run([]) == code
    said = capsys.readouterr().err.splitlines()
    if lines is None:
        assert len(said) == 1
        assert said[0].startswith("switchgear: a mistake of ours: ZeroDivisionError: a b: set SWITCHGEAR_DEBUG=1")
    else:
        assert said == lines


def test_without_arguments_it_lists_its_commands(capsys: Output) -> None:
    assert cli.run([]) == 2
    said = capsys.readouterr().err
    assert [name for name in cli.COMMANDS if f"  {name} " not in said] == []


def test_listing_commands_imports_none_of_them() -> None:
    program = (
        "import sys; from dashboard import cli; cli.run(['--help'])\n"
        "heavy = {m for m in sys.modules if m.startswith(('streamlit', 'google.', 'plotly', 'dashboard.commands.'))}\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_click_errors_keep_their_exit_code_without_usage_lines(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    def fail(*_: object, **__: object) -> None:
        raise click.BadParameter("x is\n  not y")

    monkeypatch.setattr(cli.switchgear, "main", fail)
    assert cli.run([]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "group", [["override"], ["alerts"], ["alerts", "silences"], ["alerts", "receivers"], ["export"]]
)
def test_a_group_lists_its_commands_with_whole_sentences(
    group: list[str], capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.run([*group, "--help"]) == 0
    assert "..." not in capsys.readouterr().out.partition("Commands:")[2]


def test_doctor_says_what_is_in_the_way_and_what_to_do(make_config: Make, capsys: Output) -> None:
    path = make_config('[providers.o]\nkind = "openai"\napi_key_env = "ABSENT"\n').source
    assert cli.run(["doctor", "--config", str(path)]) == 1
    assert "export ABSENT=…" in capsys.readouterr().out


def test_doctor_looks_at_the_demo_when_told_to(
    make_config: Make, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_config('[providers.o]\nkind = "openai"\napi_key_env = "ABSENT"\n').source
    monkeypatch.setenv("SWITCHGEAR_DEMO", "1")
    assert cli.run(["doctor", "--config", str(path)]) == 0
    assert "ABSENT" not in capsys.readouterr().out


def test_doctor_speaks_json(config: Config, capsys: Output) -> None:
    assert cli.run(["doctor", "--json", "--config", str(config.source)]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["verdict"] in ("ok", "warn")
    assert body["findings"][0]["name"] == "configuration"


def test_doctor_ends_with_2_when_the_configuration_cannot_be_used(tmp_path: Path, capsys: Output) -> None:
    assert cli.run(["doctor", "--config", str(tmp_path / "none.toml")]) == 2
    assert "there is no such file" in capsys.readouterr().out
