"""What keeps a server from starting is said before anything starts: one line, exit code 2, nothing left behind."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dashboard import cli
from dashboard.serving import signs_in_by_oidc
from engine.schema import APPLICATION_ID
from engine.store import Store
from tests.dashboard.running import MODELS, SIMULATED, Place, once

Output = pytest.CaptureFixture[str]
BOUND = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
SERVERS = ["serve", "watch", "dashboard", "up"]


def refused(command: str, place: Place, capsys: Output) -> str:
    """The line a command refuses with."""
    assert cli.run([command, "--config", str(place.path)]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("switchgear: ")
    assert output.err.count("\n") == 1
    return output.err.removeprefix("switchgear: ").rstrip()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken


def database(path: Path, *, application: int, version: int) -> None:
    """A database that somebody else has written."""
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (a)")
        connection.execute(f"PRAGMA application_id = {application}")
        connection.execute(f"PRAGMA user_version = {version}")
    connection.close()


def newer(folder: Path) -> None:
    database(folder / "s.db", application=APPLICATION_ID, version=999)


def foreign(folder: Path) -> None:
    database(folder / "s.db", application=0, version=0)


def text(folder: Path) -> None:
    (folder / "s.db").write_text("this is a letter, and not a database\n" * 100)


def folder_in_its_place(folder: Path) -> None:
    (folder / "s.db").mkdir()


@pytest.mark.parametrize("command", SERVERS)
@pytest.mark.parametrize(
    ("make", "line"),
    [
        (newer, "was written by a newer Switchgear (tables of version 999,"),
        (foreign, "is another program's database: choose another file"),
        (text, "is not a SQLite database"),
        (folder_in_its_place, "is a folder: name a file in it"),
    ],
)
def test_a_store_that_cannot_be_used(
    command: str, make: Callable[[Path], None], line: str, tmp_path: Path, capsys: Output
) -> None:
    make(tmp_path)
    said = refused(command, Place.make(tmp_path, store='url = "sqlite:///s.db"'), capsys)
    assert said.startswith(f"store.url: {tmp_path / 's.db'} {line}")


@pytest.mark.parametrize("command", SERVERS)
def test_a_store_in_a_folder_that_is_not_there(command: str, tmp_path: Path, capsys: Output) -> None:
    said = refused(command, Place.make(tmp_path, store='url = "sqlite:///none/s.db"'), capsys)
    assert said == f"store.url: the folder {tmp_path / 'none'} does not exist: create it or change store.url"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("command", SERVERS)
def test_a_store_that_may_not_be_written(command: str, tmp_path: Path, capsys: Output) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    said = refused(command, Place.make(tmp_path, store='url = "sqlite:///locked/s.db"'), capsys)
    assert said.endswith("is not writable by this user: give access to the file and its folder")


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may write everywhere")
@pytest.mark.parametrize("wrong", ["folder", "file"])
def test_a_store_that_may_not_be_written_as_a_process_without_roots_liberties(wrong: str, tmp_path: Path) -> None:
    """The one above is skipped for root, as whom machines that build run; this one gives the liberties up."""
    locked = tmp_path / "locked"
    locked.mkdir()
    if wrong == "file":
        Store(locked / "s.db").open()
        (locked / "s.db").chmod(0o400)
    else:
        locked.chmod(0o500)
    place = Place.make(tmp_path, store='url = "sqlite:///locked/s.db"')
    done = once("serve", "--config", str(place.path), before=BOUND if os.geteuid() == 0 else ())
    assert (done.returncode, done.stdout) == (2, "")
    why = f"{locked / 's.db'} is not writable by this user: give access to the file and its folder"
    assert done.stderr == f"switchgear: store.url: {why}\n"


@pytest.mark.parametrize("command", ["serve", "watch", "up"])
def test_a_port_of_the_gateway_that_is_in_use(
    command: str, tmp_path: Path, listener: socket.socket, capsys: Output
) -> None:
    place, port = Place.make(tmp_path), listener.getsockname()[1]
    place.path.write_text(place.path.read_text().replace(f"port = {place.port}", f"port = {port}"))
    said = refused(command, place, capsys)
    assert said == (
        f"{place.path}: server.port: port {port} on 127.0.0.1 is in use: "
        "stop what listens there, or choose another port"
    )


@pytest.mark.parametrize("command", ["dashboard", "up"])
def test_a_port_of_the_dashboard_that_is_in_use(
    command: str, tmp_path: Path, listener: socket.socket, capsys: Output
) -> None:
    place, port = Place.make(tmp_path), listener.getsockname()[1]
    place.path.write_text(place.path.read_text().replace(f"port = {place.page_port}", f"port = {port}"))
    assert refused(command, place, capsys).startswith(f"{place.path}: dashboard.port: port {port} on 127.0.0.1 is in")


@pytest.mark.parametrize("command", ["serve", "up"])
def test_a_provider_without_its_key(command: str, tmp_path: Path, capsys: Output) -> None:
    body = '[providers.models]\nkind = "google-genai"\napi_key_env = "GEMINI_API_KEY"\n' + MODELS
    place = Place.make(tmp_path, body=body)
    assert refused(command, place, capsys) == (
        f"{place.path}: providers.models.api_key_env: the environment variable GEMINI_API_KEY is not set: "
        "export GEMINI_API_KEY=KEY"
    )


@pytest.mark.parametrize("command", SERVERS)
def test_an_unknown_key(command: str, tmp_path: Path, capsys: Output) -> None:
    place = Place.make(tmp_path, server="max_bodi = 5")
    assert refused(command, place, capsys) == f'{place.path}: server.max_bodi: unknown key: did you mean "max_body"?'


@pytest.mark.parametrize("command", ["serve", "watch"])
def test_an_address_that_others_reach_without_keys(command: str, tmp_path: Path, capsys: Output) -> None:
    place = Place.make(tmp_path, server='host = "0.0.0.0"', body=SIMULATED)
    assert cli.run([command, "--config", str(place.path)]) == 2
    said = capsys.readouterr().err
    assert 'server.host: "0.0.0.0" can be reached by others and no keys are set: export SWITCHGEAR_' in said


def test_an_address_that_is_not_ours(tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWITCHGEAR_API_KEYS", "k")
    monkeypatch.setenv("SWITCHGEAR_OPERATOR_KEYS", "ana:k")
    place = Place.make(tmp_path, server='host = "192.0.2.1"')
    assert refused("serve", place, capsys) == (
        f"{place.path}: server.host: 192.0.2.1 is no address of this machine: set it to one that is"
    )


@pytest.mark.parametrize("command", [*SERVERS, "status", "doctor"])
def test_a_file_that_is_not_there(command: str, tmp_path: Path, capsys: Output) -> None:
    assert cli.run([command, "--config", str(tmp_path / "none.toml")]) == 2
    output = capsys.readouterr()
    said = output.out + output.err
    assert "there is no such file" in said
    assert "Traceback" not in said


def test_the_installed_command_says_the_same_as_a_process(tmp_path: Path) -> None:
    place = Place.make(tmp_path, server="prot = 1")
    done = once("serve", "--config", str(place.path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f'switchgear: {place.path}: server.prot: unknown key: did you mean "port"?\n'


def test_oidc_stands_for_keys_where_streamlit_will_find_it(tmp_path: Path) -> None:
    assert not signs_in_by_oidc([tmp_path])
    secrets = tmp_path / ".streamlit" / "secrets.toml"
    secrets.parent.mkdir()
    for text, found in (("[auth]\nredirect_uri = 'x'\n", True), ("[other]\n", False), ("not TOML", False)):
        secrets.write_text(text)
        assert signs_in_by_oidc([tmp_path]) is found
