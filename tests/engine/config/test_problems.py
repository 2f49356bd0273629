"""Every mistake in the file is named in one line with its place and what to write instead; all of them at once."""

import tomllib

import pytest

from engine.config import parse
from engine.core.errors import ConfigurationError

PAIR = """
[providers.g]
kind = "google-genai"
[models.a]
provider = "g"
name = "gemini-2.5-pro"
[models.b]
provider = "g"
name = "gemini-2.5-flash"
[managers.chat]
primary = "a"
secondary = "b"
"""


def lines(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        parse(tomllib.loads(text), "s.toml")
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[server]\nprot = 1", 's.toml: server.prot: unknown key: did you mean "port"?'),
        ("[servre]\nport = 1", 's.toml: servre: unknown key: did you mean "server"?'),
        (
            "[managers.chat.breaker]\nfailure_rat = 1",
            's.toml: managers.chat.breaker.failure_rat: unknown key: did you mean "failure_rate"?',
        ),
        ("[managers.chat.breaker]\nhold = 1", 'unknown key: did you mean "managers.X.recovery.hold"?'),
        ("[server]\nzzzz = 1", 'unknown key: the nearest known one is "'),
        ("[server]\nport = true", "s.toml: server.port: True: input should be a valid integer"),
        ('[server]\nport = "8080"', "s.toml: server.port: '8080': input should be a valid integer"),
        ('[store]\nretention = "30"', "store.retention: '30' is not a duration: write 30 without quotes, or \"30s\""),
        ("[managers.chat.timeouts]\ntotal = 0", "managers.chat.timeouts.total: 0: input should be greater than 0"),
        ("[managers.chat.timeouts]\ntotal = nan", "managers.chat.timeouts.total: nan is not a finite number"),
        ("[managers.chat.breaker]\nfailure_rate = 1.5", "input should be less than or equal to 1"),
        ("[managers.chat.breaker]\nfailure_rate = inf", "managers.chat.breaker.failure_rate: inf"),
        ('[managers.chat]\non_rate_limit = "spil"', 'did you mean "spill"?'),
        ('[providers.p]\nkind = "opnai"', 'did you mean "openai"?'),
        ("[providers.p]", 's.toml: providers.p.kind: is missing: add kind = "google-genai"'),
        ("[managers.c]\nprimary = 'a'", 's.toml: managers.c.secondary: is missing: add secondary = "flash"'),
        ('[models.x]\ncapabilities = ["tool"]', 'did you mean "tools"?'),
        ('[providers."a b"]\nkind = "openai"', "providers.a b: a name here has up to 64 letters"),
    ],
)
def test_a_mistake_in_one_section(text: str, expected: str) -> None:
    assert any(expected in line for line in lines(text)), lines(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[store]\nurl = "postgresql://x/y"', "store.url: PostgreSQL is not supported yet"),
        ('[store]\nurl = "switchgear.db"', 'store.url: is no database file: write "sqlite:///switchgear.db"'),
        ('[store]\nurl = "sqlite:///:memory:"', "store.url: is no database file"),
        ('[fleet]\nurl = "consul://x"', "fleet.url: is no coordinator"),
        ('[fleet]\nurl = "redis://:hunter2@x"', "fleet.url: holds a password: put the whole URL into"),
        ('[providers.p]\nkind = "openai"\nbase_url = "http://x"', 'write "http://x/v1"'),
        ('[providers.p]\nkind = "openai"\nbase_url = "http://x/v1/chat/completions"', 'write "http://x/v1"'),
        ('[providers.p]\nkind = "google-genai"\nbase_url = "http://x:1/v1beta"', 'write "http://x:1"'),
        ('[providers.p]\nkind = "openai"\nbase_url = "x:1/v1"', "providers.p.base_url: is no address"),
        ('[providers.p]\nkind = "openai"\nbase_url = "http://x:port/v1"', "providers.p.base_url: is no address"),
        ('[providers.p]\nkind = "openai"\nbase_url = "http://u:p@x/v1"', "holds more than an address"),
        ('[providers.p]\nkind = "simulated"\nbase_url = "http://x"', "a simulated provider has no endpoint"),
        ('[models.c]\nprovider = "gg"\nname = "x"', 'models.c.provider: there is no [providers.gg]: did you mean "g"?'),
        ('[managers.m]\nprimary = "a"\nsecondary = "q"', "managers.m.secondary: there is no [models.q]: add it"),
        ('[managers.m]\nprimary = "a"\nsecondary = "a"', 'managers.m.secondary: "a" is the primary too'),
        (
            '[managers.chat.timeouts]\nanswer = "3m"',
            "answer: 3m is longer than total (2m, the default): lower it, or raise",
        ),
        ('[managers.chat.timeouts]\nconnect = "9s"\nanswer = "8s"', "connect: 9s is longer than answer (8s)"),
        ('[models.a.timeouts]\nconnect = "9s"\nanswer = "8s"', "models.a.timeouts.connect: 9s is longer than answer"),
        ('[managers.chat.breaker]\nopen_for = "9s"\nopen_max = "8s"', "breaker.open_max: 8s is shorter than open_for"),
        ("[managers.chat.retry]\nbase_delay = 9\nmax_delay = 8", "retry.max_delay: 8s is shorter than base_delay"),
        ("[managers.chat.recovery]\nstages = [0.5, 0.2, 1.0]", "recovery.stages: [0.5, 0.2, 1.0] must rise and end at"),
        ("[managers.chat.recovery]\nstages = [0.5]", "recovery.stages: [0.5] must rise and end at 1.0"),
        ("[managers.chat.recovery]\nstages = []", "recovery.stages: [] must rise and end at 1.0"),
        ('[managers.chat.validation]\ncanaries = "no.toml"', 'validation.canaries: there is no file "no.toml"'),
        ('[[alerts.receivers]]\nname = "o"\nkind = "slack"', "alerts.receivers[0]: has no address: add url_env"),
        ('[[alerts.receivers]]\nname = "o"\nkind = "pagerduty"', "alerts.receivers[0].secret_env: is missing"),
        (
            '[[alerts.receivers]]\nname = "o"\nkind = "slack"\nurl = "https://x"\nurl_env = "X"',
            "alerts.receivers[0]: has both url and url_env",
        ),
        ('[[alerts.receivers]]\nname = "o"\nkind = "webhook"\nurl = "x"', "alerts.receivers[0].url: is no address"),
        (
            '[[alerts.receivers]]\nname = "o"\nkind = "webhook"\nurl = "https://a:b@x/"',
            "alerts.receivers[0].url: holds a password: put the whole address into an environment variable",
        ),
        (
            '[[alerts.receivers]]\nname = "o"\nkind = "webhook"\nurl_env = "X"\nmatchers = ["severity"]',
            "alerts.receivers[0].matchers: 'severity' is no matcher",
        ),
        (
            '[[alerts.receivers]]\nname = "o"\nkind = "webhook"\nurl_env = "X"\n' * 2,
            'alerts.receivers: 2 receivers are named "o"',
        ),
    ],
)
def test_a_mistake_between_sections(text: str, expected: str) -> None:
    head, _, rest = text.partition("\n")
    base = PAIR.replace(f"\n{head}\n", f"\n{head}\n{rest}\n") if f"\n{head}\n" in PAIR else f"{PAIR}{text}"
    assert any(expected in line for line in lines(base)), lines(base)


def test_a_file_without_managers_is_told_what_to_add() -> None:
    assert lines("") == ['s.toml: managers: there is none: add [managers.chat] with primary = "…" and secondary = "…"']


def test_all_problems_are_listed_at_once() -> None:
    found = lines('[server]\nport = -1\nprot = 2\n[store]\nretention = "x"\n[alerts]\nevery = 3')
    assert [line.split(": ")[1] for line in found] == ["server.port", "server.prot", "store.retention", "alerts.every"]


def test_a_name_that_leads_nowhere_is_told_beside_a_mistake_within_a_section() -> None:
    found = lines(
        '[server]\nport = "x"\n[providers.gemini]\nkind = "simulated"\n[models.a]\nprovider = "gemin"\nname = "a"\n'
        '[models.b]\nprovider = 3\nname = "b"\n[managers.chat]\nprimary = "a"\nsecondary = "flash"'
    )
    keys = ["server.port", "models.b.provider", "models.a.provider", "managers.chat.secondary"]
    assert [line.split(": ")[1] for line in found] == keys


@pytest.mark.parametrize(
    "text",
    [
        '[providers.g]\nkind = "openai"\napi_key_env = "sk-hunter2"',
        '[fleet]\nurl = "redis://u:hunter2@host"',
        '[providers.g]\nkind = "openai"\nbase_url = "http://u:hunter2@host/v1"',
        '[[alerts.receivers]]\nname = "o"\nkind = "slack"\nurl = "hunter2"',
        '[[alerts.receivers]]\nname = "o"\nkind = "slack"\nurl = ["hunter2"]',
        '[server]\napi_keys_env = "hunter 2, hunter2"',
    ],
)
def test_a_secret_pasted_into_the_file_is_not_repeated(text: str) -> None:
    assert "hunter2" not in "\n".join(lines(text))
