"""Who gets in, and as what."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from dashboard import acts
from dashboard.conversation import Exchange, Prompt
from dashboard.entrance import routes
from dashboard.viewer import COOKIE, SESSION_S, Visit, identify, session, token
from engine.config import Config, parse
from engine.control import Actor, Rank
from engine.core.errors import Unauthorized

NOW = 1_790_000_000.0
TABLES = {
    "providers": {"p": {"kind": "simulated"}},
    "models": {"a": {"provider": "p", "name": "a"}, "b": {"provider": "p", "name": "b"}},
    "managers": {"chat": {"primary": "a", "secondary": "b"}},
}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return parse(TABLES | {"dashboard": {"operators": ["ana@example.com"]}}, tmp_path / "switchgear.toml")


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWITCHGEAR_OPERATOR_KEYS", "ana:open-sesame")
    monkeypatch.setenv("SWITCHGEAR_VIEWER_KEYS", "bob:let-me-see")


def test_this_machine_needs_no_sign_in_without_keys(config: Config) -> None:
    found = identify(config, Visit({}), NOW)
    assert found is not None
    assert found.rank is Rank.OPERATOR


@pytest.mark.usefixtures("keys")
def test_with_keys_nobody_gets_in_without_one(config: Config) -> None:
    assert identify(config, Visit({}), NOW) is None
    assert token(config, "wrong", NOW) is None


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize(
    ("key", "name", "rank"), [("open-sesame", "ana", Rank.OPERATOR), ("let-me-see", "bob", Rank.VIEWER)]
)
def test_a_key_opens_with_its_name_and_rank(config: Config, key: str, name: str, rank: Rank) -> None:
    made = token(config, key, NOW)
    assert made is not None
    found = identify(config, Visit({COOKIE: made}), NOW + 60)
    assert found is not None
    assert (found.name, found.rank) == (name, rank)


@pytest.mark.usefixtures("keys")
def test_a_session_ends_and_cannot_be_raised(config: Config) -> None:
    made = token(config, "let-me-see", NOW) or ""
    assert session(config, made, NOW + SESSION_S) is None
    body, _, signature = made.partition(".")
    assert session(config, f"{body[:-2]}AA.{signature}", NOW) is None
    assert session(config, f"{body}.{signature[:-1]}é", NOW) is None
    assert session(config, "", NOW) is None
    assert session(config, "é.x", NOW) is None


@pytest.mark.usefixtures("keys")
def test_a_session_ends_with_its_key(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    made = token(config, "open-sesame", NOW) or ""
    monkeypatch.setenv("SWITCHGEAR_OPERATOR_KEYS", "ana:another")
    assert session(config, made, NOW) is None


@pytest.mark.parametrize(("email", "rank"), [("Ana@Example.com", Rank.OPERATOR), ("eve@example.com", Rank.VIEWER)])
def test_an_oidc_address_on_the_list_is_an_operator(config: Config, email: str, rank: Rank) -> None:
    found = identify(config, Visit({}, email, oidc=True), NOW)
    assert found is not None
    assert found.rank is rank


def test_with_oidc_nobody_gets_in_unnamed(config: Config) -> None:
    assert identify(config, Visit({}, None, oidc=True), NOW) is None


@pytest.mark.usefixtures("keys")
def test_the_form_sets_a_cookie_that_scripts_cannot_read(config: Config) -> None:
    client = TestClient(Starlette(routes=routes(config)), follow_redirects=False)
    answer = client.post("/sign-in?then=/control", data={"key": "open-sesame"})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/control"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


@pytest.mark.usefixtures("keys")
def test_the_form_cannot_be_posted_from_elsewhere_or_lead_there(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dashboard.entrance.WRONG_KEY_WAIT_S", 0.0)
    client = TestClient(Starlette(routes=routes(config)), follow_redirects=False)
    answer = client.post("/sign-in", data={"key": "open-sesame"}, headers={"sec-fetch-site": "cross-site"})
    assert answer.status_code == 403
    answer = client.post("/sign-in?then=//evil.example", data={"key": "open-sesame"})
    assert answer.headers["location"] == "/"
    answer = client.post("/sign-in", data={"key": "wrong"})
    assert answer.headers["location"] == "/?refused=1"
    assert "set-cookie" not in answer.headers


def test_a_viewer_cannot_send_prompts_with_our_key() -> None:
    bob = Actor("bob", Rank.VIEWER)
    with pytest.raises(Unauthorized, match="bob may look and not act"):
        acts.converse(bob, Prompt("chat", "Hello"), [Exchange()])
