"""`switchgear alerts` on a real store: what it lists is what the evaluator found, and acts are recorded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from alerts.receivers import receivers_of
from alerts.rules import parse_rules
from alerts.tick import Ticker
from dashboard.commands.alerts_cmd import command
from engine.clock import SystemClock
from engine.config import Config
from engine.core.errors import ConfigurationError
from tests.alerts.listener import Listener
from tests.alerts.world import World, open_recorder
from tests.conftest import SIMULATED

RULES = '[[rules]]\nalert = "OnSecondary"\nexpr = \'active_model == "secondary"\'\nlabels = { severity = "critical" }\n'
RECEIVER = '[[alerts.receivers]]\nname = "ops"\nkind = "webhook"\nurl = "{url}"\nallow_private = true\n'


def run(folder: Path, *arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(
        command, [*arguments, "--config", str(folder / "switchgear.toml")], catch_exceptions=False
    )
    assert done.exit_code == code, done.output
    return done.output


def test_alerts_history_silences_and_receivers_are_listed_and_acted_on(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    with Listener() as ops:
        extra = RECEIVER.format(url=ops.url)
        config = make_config(extra)
        (tmp_path / "switchgear.toml").write_text(SIMULATED + extra)
        recorder = open_recorder(tmp_path)
        world = World(recorder, SystemClock())
        world.agree("secondary")
        ticker = Ticker(recorder, world.clock, ["chat"], receivers_of(config), "https://x", "a")
        ticker.tick(parse_rules(RULES).rules)

        (alert,) = json.loads(run(tmp_path, "list", "--json"))
        assert (alert["alertname"], alert["state"], alert["silenced"]) == ("OnSecondary", "firing", False)
        (event,) = json.loads(run(tmp_path, "history", "--json"))
        assert (event["from"], event["state"]) == ("inactive", "firing")
        assert "no alert of a rule Other" in run(tmp_path, "history", "--rule", "Other"), "others have done something"

        added = run(
            tmp_path, "silences", "add", 'manager="chat"', "--for", "1h", "--reason", "r", "--by", "ana", "--json"
        )
        identifier = json.loads(added)["id"]
        assert json.loads(run(tmp_path, "list", "--json"))[0]["silenced"]
        assert "ana" in run(tmp_path, "silences")
        assert json.loads(run(tmp_path, "silences", "expire", identifier, "--json"))["id"] == identifier
        assert json.loads(run(tmp_path, "receivers", "replay", "ops", "--json")) == {"name": "ops", "due": 0}
        assert json.loads(run(tmp_path, "receivers", "resume", "ops", "--json")) == {"name": "ops", "stopped": False}
        assert "no silence is in force" in run(tmp_path, "silences")

        (row,) = json.loads(run(tmp_path, "receivers", "--json"))
        assert (row["name"], row["state"]) == ("ops", "ready")
        assert "took it" in run(tmp_path, "receivers", "test", "ops")
        world.execute("UPDATE outbox SET state = 'dead'")
        dead: Any = json.loads(run(tmp_path, "receivers", "--json"))[0]["dead"]
        assert run(tmp_path, "receivers", "replay", "ops").startswith(f"{dead} letters")
        with pytest.raises(ConfigurationError, match="there is ops"):
            run(tmp_path, "receivers", "test", "opps")
        recorder.close()
    assert "did not take it" in run(tmp_path, "receivers", "test", "ops", code=1)


@pytest.mark.parametrize("verb", ["check", "test"])
def test_a_file_that_is_not_there_is_a_mistake_of_usage(tmp_path: Path, verb: str) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        done = CliRunner().invoke(command, [verb, str(path)])
        assert done.exit_code == 2
        assert str(path) in done.output
