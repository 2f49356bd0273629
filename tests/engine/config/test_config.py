"""What a valid file means to the rest of the engine."""

import json
import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from engine.config import Config, ProviderKind, Surface, is_loopback, load, parse, sections
from engine.config.config import DEMO_RECEIVER_VARIABLE
from engine.config.facts import known, shipped_facts
from engine.config.schema import NAME, schema, text
from engine.core.errors import ConfigurationError
from engine.core.policy import (
    BreakerPolicy,
    FleetPolicy,
    ManagerPolicy,
    ModelFacts,
    RecoveryPolicy,
    RetryPolicy,
    SpillPolicy,
    Timeouts,
    ValidationPolicy,
)
from engine.shipped import shipped

Make = Callable[..., Config]


def test_the_shipped_file_loads_without_any_key() -> None:
    config = load(shipped("switchgear.toml"))
    assert config.manager_policy("chat").primary.name == "gemini-2.5-pro"
    assert config.provider_settings("gemini").api_key is None


def test_a_file_that_an_editor_began_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "switchgear.toml"
    path.write_text(shipped("switchgear.toml").read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert load(path).managers


def test_the_file_is_named_by_argument_then_environment_then_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped_text = shipped("switchgear.toml").read_text(encoding="utf-8")
    (tmp_path / "data").mkdir()
    for name in ("a.toml", "b.toml", "data/switchgear.toml"):
        (tmp_path / name).write_text(shipped_text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert load("a.toml", {"SWITCHGEAR_CONFIG": "b.toml"}).source == tmp_path / "a.toml"
    assert load(None, {"SWITCHGEAR_CONFIG": "b.toml"}).source == tmp_path / "b.toml"
    assert load(None, {}).source == tmp_path / "data/switchgear.toml"


def test_a_missing_file_says_how_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing\.toml: there is no such file: pass --config FILE, set"):
        load(tmp_path / "nothing.toml")


@pytest.mark.parametrize("content", [b"a = ", b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "s.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "policy"),
    [
        (sections.RetrySection, RetryPolicy),
        (sections.BreakerSection, BreakerPolicy),
        (sections.RecoverySection, RecoveryPolicy),
        (sections.SpillSection, SpillPolicy),
        (sections.ValidationSection, ValidationPolicy),
        (sections.TimeoutsSection, Timeouts),
        (sections.ModelTimeoutsSection, Timeouts),
    ],
)
def test_sections_have_the_fields_of_their_policies(section: type[sections.Section], policy: type) -> None:
    assert list(section.model_fields) == [field.name for field in fields(policy)]


def test_an_empty_manager_behaves_as_the_policies_defaults_say(config: Config) -> None:
    policy = config.manager_policy("chat")
    assert policy == ManagerPolicy("chat", policy.primary, policy.secondary)
    assert config.fleet_policy == FleetPolicy()


def test_durations_reach_the_policies_as_seconds(make_config: Make) -> None:
    config = make_config('[managers.chat.breaker]\nwindow = "2m"\n[managers.chat.recovery]\nhold = 90\n')
    assert config.manager_policy("chat").breaker.window == 120.0
    assert config.manager_policy("chat").recovery.hold == 90.0


def test_defaults_give_way_to_what_is_written(make_config: Make) -> None:
    tables = ("timeouts]\ntotal = 4", "breaker]\nopen_max = 1", "retry]\nbase_delay = 60")
    policy = make_config("".join(f"[managers.chat.{table}\n" for table in tables)).manager_policy("chat")
    assert policy.timeouts == Timeouts(connect=2, first_token=2, answer=2, idle=2, total=4)
    assert (policy.breaker.open_for, policy.breaker.open_max) == (1, 1)
    assert (policy.retry.base_delay, policy.retry.max_delay) == (60, 60)


def test_a_models_clocks_override_the_managers_up_to_its_deadline(make_config: Make) -> None:
    policy = make_config("[managers.chat.timeouts]\ntotal = 40\n[models.pro.timeouts]\nfirst_token = 45\nidle = 3\n")
    clocks = policy.manager_policy("chat")
    assert clocks.primary.timeouts == Timeouts(connect=5, first_token=40, answer=20, idle=3, total=40)
    assert (
        clocks.secondary.timeouts
        == clocks.timeouts
        == Timeouts(connect=5, first_token=20, answer=20, idle=15, total=40)
    )


def model(table: str) -> ModelFacts:
    data = tomllib.loads(
        f'[providers.g]\nkind = "openai"\n[models.a]\nprovider = "g"\n{table}\n[models.b]\nprovider = "g"\nname = "b"\n'
        '[managers.m]\nprimary = "a"\nsecondary = "b"\n'
    )
    return parse(data).manager_policy("m").primary


def test_facts_of_a_known_model_need_not_be_written() -> None:
    facts = model('name = "gemini-2.5-flash"')
    assert (facts.context_window, facts.max_output_tokens, facts.input_price) == (1_048_576, 65_536, 0.30)
    assert "prefill" in facts.capabilities


def test_models_that_refuse_a_trailing_model_turn_are_not_asked_with_a_prefill() -> None:
    takes = {name for name, facts in shipped_facts().items() if "prefill" in facts["capabilities"]}
    assert takes == {"gemini-2.5-pro", "gemini-2.5-flash", "gemini-2.5-flash-lite"}


def test_what_is_written_wins_over_what_is_known_field_by_field() -> None:
    facts = model('name = "gemini-2.5-flash"\ninput_price = 9\ncapabilities = []')
    assert (facts.input_price, facts.output_price, facts.capabilities) == (9, 2.50, frozenset())


def test_zero_means_unknown() -> None:
    facts = model('name = "gpt-4o"\ncontext_window = 0\noutput_price = 0\nrequests_per_minute = 0')
    assert (facts.context_window, facts.output_price, facts.requests_per_minute) == (None, None, None)


def test_an_unknown_model_has_unknown_facts_and_usual_capabilities() -> None:
    facts = model('name = "house-model"')
    assert facts == ModelFacts("a", "house-model", "g")


@pytest.mark.parametrize(
    ("name", "fact"),
    [
        ("models/gemini-2.5-pro", "gemini-2.5-pro"),
        ("google/gemini-2.5-pro", "gemini-2.5-pro"),
        ("gemini-2.5-pro-preview-06-05", "gemini-2.5-pro"),
        ("gemini-2.5-flash-001", "gemini-2.5-flash"),
        ("gemini-2.5-flash-preview-09-2025", "gemini-2.5-flash"),
        ("gemini-3.1-pro-preview", "gemini-3.1-pro"),
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("mistral-large-latest", "mistral-large"),
        ("llama3.1:8b", "llama3.1"),
        ("meta-llama/Llama-3.3-70B-Instruct", "llama-3.3-70b"),
    ],
)
def test_versions_dates_and_vendors_are_looked_through(name: str, fact: str) -> None:
    assert known(name) is shipped_facts()[fact]


@pytest.mark.parametrize("name", ["gpt-4", "gemini", "gemini-2.5-pro-tts", "my-gpt-4o", ""])
def test_other_models_are_not_taken_for_a_known_one(name: str) -> None:
    assert known(name) == {}


def test_every_shipped_fact_is_a_valid_model() -> None:
    for name, facts in shipped_facts().items():
        sections.ModelSection.model_validate_json(json.dumps({"provider": "p", "name": name, **facts}), strict=True)


def test_relative_paths_are_beside_the_file(make_config: Make, tmp_path: Path) -> None:
    assert make_config().store_path == tmp_path / "switchgear.db"
    assert make_config('[store]\nurl = "sqlite:///var/x.db"\n').store_path == tmp_path / "var/x.db"
    assert make_config('[store]\nurl = "sqlite:////var/lib/x.db"\n').store_path == Path("/var/lib/x.db").resolve()


def test_the_rule_file_named_is_the_one_used(make_config: Make, tmp_path: Path) -> None:
    assert make_config('[alerts]\nrules = "mine.toml"\n').alert_rules_path == tmp_path / "mine.toml"
    (tmp_path / "alerts.toml").touch()
    assert make_config().alert_rules_path == tmp_path / "alerts.toml"


def test_a_key_is_read_from_the_environment_and_not_shown(make_config: Make) -> None:
    config = make_config('[providers.o]\nkind = "openai"\napi_key_env = "K"\nbase_url = "http://h/v1/"\n')
    settings = config.provider_settings("o", {"K": "hunter2"})
    assert (settings.api_key, settings.base_url, settings.kind) == ("hunter2", "http://h/v1", ProviderKind.OPENAI)
    assert "hunter2" not in repr(settings)
    assert config.provider_settings("simulated", {}).key_trouble is None


@pytest.mark.parametrize(
    ("held", "key", "trouble"),
    [
        ("sk-1", "sk-1", None),
        (" sk-1\r\n", "sk-1", None),
        ("", None, "is not set"),
        ("\n", None, "is not set"),
        ("sk-1\nsk-2", "sk-1\nsk-2", "holds more than a key"),
        ("sk 1", "sk 1", "holds more than a key"),
        ("ключ", "ключ", "holds more than a key"),
    ],
)
def test_a_key_that_no_header_takes_is_refused_and_a_line_end_is_no_part_of_it(
    make_config: Make, held: str, key: str | None, trouble: str | None
) -> None:
    """A file of secrets that ends in a line feed made every call a mistake of ours, or a connection that failed."""
    config = make_config('[providers.o]\nkind = "openai"\napi_key_env = "K"\nbase_url = "http://h/v1/"\n')
    settings = config.provider_settings("o", {"K": held})
    assert settings.api_key == key
    assert (trouble or "") in (settings.key_trouble or "")
    assert (settings.key_trouble is None) is (trouble is None)


def test_keys_are_comma_separated_and_operators_have_names(config: Config) -> None:
    assert config.api_keys({"SWITCHGEAR_API_KEYS": " a, b ,,"}) == ("a", "b")
    assert config.api_keys({}) == ()
    keys = config.operator_keys({"SWITCHGEAR_OPERATOR_KEYS": "ana:k:1,bob:k2"})
    assert [(key.name, key.key) for key in keys] == [("ana", "k:1"), ("bob", "k2")]
    assert "k2" not in repr(keys)


@pytest.mark.parametrize("entry", ["hunter2", ":hunter2", "ana:"])
def test_a_key_without_a_name_is_refused_and_not_repeated(config: Config, entry: str) -> None:
    with pytest.raises(ConfigurationError, match=r"server\.viewer_keys_env: entry 2 of .* is not name:key") as caught:
        config.viewer_keys({"SWITCHGEAR_VIEWER_KEYS": f"ok:1,{entry}"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_a_loopback_address_needs_no_keys(make_config: Make, host: str) -> None:
    assert is_loopback(host)
    make_config(f'[server]\nhost = "{host}"\n').refuse_exposed(*Surface, environ={})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com", "127.0.0.1.example.com"])
def test_any_other_address_is_refused_with_the_line_to_add(make_config: Make, host: str) -> None:
    config = make_config(f'[server]\nhost = "{host}"\n[dashboard]\nhost = "{host}"\n')
    for surface, line in zip(
        Surface, ("_API_KEYS=KEY", "_OPERATOR_KEYS=NAME:KEY", "_OPERATOR_KEYS=NAME:KEY"), strict=True
    ):
        with pytest.raises(ConfigurationError, match=f"export SWITCHGEAR{line}"):
            config.refuse_exposed(surface, environ={})
    config.refuse_exposed(*Surface, environ={"SWITCHGEAR_API_KEYS": "k", "SWITCHGEAR_OPERATOR_KEYS": "a:k"})
    config.refuse_exposed(Surface.DASHBOARD, oidc=True, environ={})


def test_an_open_address_without_any_variable_is_refused_at_once(make_config: Make) -> None:
    with pytest.raises(ConfigurationError, match=r'set server\.api_keys_env = "SWITCHGEAR_API_KEYS"'):
        make_config('[server]\nhost = "0.0.0.0"\napi_keys_env = ""\n')


def test_the_coordinators_url_may_come_from_the_environment(make_config: Make) -> None:
    config = make_config('[fleet]\nurl_env = "F"\n')
    assert config.fleet_url({"F": "redis://:k@h:1"}) == "redis://:k@h:1"
    assert config.fleet_url({}) == "store"


@pytest.mark.parametrize("url", ["redis://h", "rediss://h:1/2", "etcd://a:2379,b:2379", "zookeeper://a:2181,b:2181/x"])
def test_coordinators_may_have_several_addresses(make_config: Make, url: str) -> None:
    assert make_config(f'[fleet]\nurl = "{url}"\n').fleet_url({}) == url


def test_the_demo_replaces_providers_and_an_unnamed_store_only(tmp_path: Path) -> None:
    config = load(shipped("switchgear.toml"))
    demo = config.as_demo()
    assert demo.is_demo
    assert not config.is_demo
    assert demo.store_path.name == "demo.db"
    assert demo.manager_policy("chat") == config.manager_policy("chat")


def test_the_demo_records_into_a_store_that_the_file_names(make_config: Make, tmp_path: Path) -> None:
    assert make_config('[store]\nurl = "sqlite:///mine.db"\n').as_demo().store_path == tmp_path / "mine.db"


def test_the_demo_wakes_nobody_and_joins_no_fleet(make_config: Make) -> None:
    config = make_config(
        '[fleet]\nurl = "redis://h"\nurl_env = "FLEET"\n[alerts]\nheartbeat_url_env = "HEART"\n'
        '[[alerts.receivers]]\nname = "night"\nkind = "webhook"\nurl = "https://h/x"\n'
    )
    alone = config.as_demo({})
    assert alone.alerts.receivers == ()
    assert alone.alerts.heartbeat_url_env == ""
    assert alone.fleet_url({"FLEET": "redis://h"}) == "store"
    assert [one.name for one in config.as_demo({DEMO_RECEIVER_VARIABLE: "http://127.0.0.1:1/"}).alerts.receivers] == [
        "demo"
    ]


@pytest.mark.parametrize(
    ("table", "url"),
    [
        ("", "http://127.0.0.1:8501"),
        ('host = "0.0.0.0"\nport = 1\n', "http://127.0.0.1:1"),
        ('host = "::1"\n', "http://[::1]:8501"),
        ('public_url = "https://s.example/x/"\n', "https://s.example/x"),
    ],
)
def test_links_begin_with_the_public_url_or_the_address(make_config: Make, table: str, url: str) -> None:
    assert make_config(f"[dashboard]\n{table}").dashboard_url == url


def test_an_unknown_manager_is_named_with_those_there_are(config: Config) -> None:
    with pytest.raises(
        ConfigurationError, match=r"managers\.caht: there is no such manager: add it, or name one of chat"
    ):
        config.manager_policy("caht")


def test_the_shipped_schema_is_current() -> None:
    assert shipped(NAME).read_text(encoding="utf-8") == text(), "run `make schema`"


def test_the_shipped_file_obeys_the_schema() -> None:
    Draft202012Validator.check_schema(schema())
    Draft202012Validator(schema()).validate(tomllib.loads(shipped("switchgear.toml").read_text(encoding="utf-8")))
