"""Every check says what it saw and what to do; none of them raises for what it looks for."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from engine import doctor
from engine.config import Config
from engine.core.agreement import Document
from engine.doctor import Level
from engine.fleet.base import CoordinatorUnavailable
from engine.schema import SCHEMA_VERSION
from engine.store import Store

Make = Callable[..., Config]


class Memory:
    """A coordinator for one process; `careless` ones take any swap."""

    def __init__(self, *, careless: bool = False, down: bool = False) -> None:
        self.documents: dict[str, Document] = {}
        self.careless, self.down, self.closed = careless, down, False

    def read(self, manager: str) -> Document | None:
        if self.down:
            msg = "nobody listens"
            raise CoordinatorUnavailable(msg)
        return self.documents.get(manager)

    def swap(self, manager: str, expected_epoch: int | None, document: Document) -> bool:
        held = self.documents.get(manager)
        if (held.epoch if held else None) != expected_epoch and not self.careless:
            return False
        self.documents[manager] = document
        return True

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def server(make_config: Make) -> Config:
    return make_config('[fleet]\nurl_env = "FLEET"\nurl = "redis://h:1"\n')


def test_a_sound_configuration_has_nothing_in_the_way(make_config: Make) -> None:
    config = make_config("[server]\nport = 0\n[dashboard]\nport = 0\n")
    findings = doctor.examine(config.source, environ={}, connect=lambda _: Memory())
    assert not [finding for finding in findings if finding.level is Level.FAIL]
    names = [
        "configuration",
        "keys",
        "providers",
        "alert rules",
        "store",
        "sqlite",
        "disk",
        "clocks",
        "ports",
        "coordinator",
    ]
    assert list(dict.fromkeys(finding.name for finding in findings)) == names


def test_what_is_wrong_always_has_a_remedy(make_config: Make) -> None:
    config = make_config('[fleet]\nurl = "redis://nowhere"\n[providers.o]\nkind = "openai"\napi_key_env = "K"\n')
    findings = doctor.examine(config.source, environ={}, connect=lambda _: Memory(down=True))
    assert doctor.worst(findings) is Level.FAIL
    assert all(finding.remedy for finding in findings if finding.level is not Level.OK)


def test_every_mistake_of_the_file_is_a_finding(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text("[server]\nprot = 1\nprt = 2\n", encoding="utf-8")
    findings = doctor.examine(path, environ={})
    assert [finding.level for finding in findings if finding.name == "configuration"] == [Level.FAIL, Level.FAIL]


def test_a_missing_key_names_its_variable_and_who_needs_it(make_config: Make) -> None:
    config = make_config(
        '[providers.o]\nkind = "openai"\napi_key_env = "K"\n'
        '[[alerts.receivers]]\nname = "ops"\nkind = "webhook"\nurl_env = "U"\nsecret_env = "S"\n'
    )
    details = [finding.detail for finding in doctor.keys(config, {"S": "x"})]
    assert details == ["$K is not set: providers.o has no key", "$U is not set: receiver ops cannot be reached"]
    assert [finding.level for finding in doctor.keys(config, {"K": "x", "U": "x", "S": "x"})] == [Level.OK]
    (broken,) = doctor.keys(config, {"K": "x\ny", "U": "x", "S": "x"})
    assert (broken.level, broken.detail) == (Level.FAIL, "$K holds more than a key, or none: providers.o has no key")


def test_an_open_address_without_keys_is_found(make_config: Make) -> None:
    config = make_config('[server]\nhost = "0.0.0.0"\n')
    assert all(finding.level is Level.FAIL for finding in doctor.keys(config, {}))


def test_the_store_is_written_for_real_and_nothing_is_left_behind(config: Config) -> None:
    before = set(config.store_path.parent.iterdir())
    assert doctor.store(config).level is Level.OK
    assert set(config.store_path.parent.iterdir()) == before


def test_a_store_whose_folder_is_a_file_is_found(make_config: Make, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    finding = doctor.store(make_config('[store]\nurl = "sqlite:///taken/x.db"\n'))
    assert finding.level is Level.FAIL
    assert "store.url" in finding.remedy


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write_is_found(make_config: Make, tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    assert doctor.store(make_config('[store]\nurl = "sqlite:///closed/x.db"\n')).level is Level.FAIL


def test_a_file_that_is_no_database_is_found(config: Config) -> None:
    config.store_path.write_bytes(b"not a database at all" * 100)
    finding = doctor.store(config)
    assert (finding.level, finding.remedy) == (Level.FAIL, "move it away or change store.url")


def test_a_store_of_a_newer_version_is_found(config: Config) -> None:
    """It was called writable, and refused by whatever was started next."""
    with closing(Store(config.store_path).open().writer()) as writer:
        writer.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    finding = doctor.store(config)
    assert (finding.level, finding.remedy) == (Level.FAIL, "upgrade Switchgear here, or choose another file")
    assert "newer Switchgear" in finding.detail


def test_a_folder_that_is_not_there_is_found_and_not_made(make_config: Make, tmp_path: Path) -> None:
    """It was made, and the next start, which wants it made by hand, went as the doctor had never said."""
    finding = doctor.store(make_config('[store]\nurl = "sqlite:///missing/x.db"\n'))
    assert (finding.level, finding.remedy) == (Level.FAIL, "create it or change store.url")
    assert not (tmp_path / "missing").exists()


def test_a_store_that_somebody_holds_locked_is_said_to_be_so(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LOCK_WAIT", 0.05)
    with closing(Store(config.store_path).open().writer()) as holder:
        holder.execute("BEGIN IMMEDIATE")
        finding = doctor.store(config)
    assert (finding.level, finding.remedy) == (Level.WARN, "end what holds a transaction open")


@pytest.mark.parametrize(
    ("version", "level"), [("3.40.1", "warn"), ("3.51.2", "warn"), ("3.51.3", "ok"), ("3.53.4", "ok")]
)
def test_sqlite_before_the_fix_of_its_wal_reset_is_warned_of(version: str, level: str) -> None:
    assert doctor.sqlite_version(version).level == level


@pytest.mark.parametrize(("jump", "level"), [(0.0, "ok"), (0.01, "ok"), (3.0, "warn"), (-3.0, "warn")])
def test_a_wall_clock_that_jumps_is_noticed(jump: float, level: str) -> None:
    walls = iter([2e9, 2e9 + 0.2 + jump])
    ticks = iter([5.0, 5.2])
    assert doctor.clocks(lambda: next(ticks), lambda: next(walls), lambda _: None).level == level


def test_a_wall_clock_that_was_never_set_is_noticed() -> None:
    assert doctor.clocks(lambda: 0.0, lambda: 60.0, lambda _: None).level is Level.FAIL


def test_a_port_in_use_is_warned_of_and_a_foreign_address_refused(make_config: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = make_config(f'[server]\nport = {taken.getsockname()[1]}\n[dashboard]\nhost = "192.0.2.1"\n')
        assert [finding.level for finding in doctor.ports(config)] == [Level.WARN, Level.FAIL]


@pytest.mark.parametrize("epoch", [None, 7])
def test_the_coordinator_is_tried_with_a_real_swap_on_a_key_of_its_own(server: Config, epoch: int | None) -> None:
    store = Memory()
    if epoch:
        store.documents[doctor.SCRATCH] = Document(epoch=epoch)
    assert doctor.coordinator(server, lambda _: store).level is Level.OK
    assert store.documents.keys() == {doctor.SCRATCH}
    assert store.closed


def test_a_coordinator_that_takes_a_stale_swap_is_not_to_be_used(server: Config) -> None:
    finding = doctor.coordinator(server, lambda _: Memory(careless=True))
    assert (finding.level, finding.remedy[:14]) == (Level.FAIL, "do not use it:")


def test_a_coordinator_that_cannot_be_reached_is_named_without_its_password(server: Config) -> None:
    environ = {"FLEET": "redis://u:hunter2@there:6379/0"}
    finding = doctor.coordinator(server, lambda _: Memory(down=True), environ=environ)
    assert (finding.level, finding.detail) == (Level.FAIL, "redis://there:6379 cannot be used: nobody listens")


def test_a_store_that_is_the_coordinator_needs_no_second_check(config: Config) -> None:
    assert doctor.coordinator(config).level is Level.OK
