"""The whole way with real threads, a real store and a real receiver."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from alerts.service import AlertService, Part
from engine.clock import SystemClock
from engine.config import Config
from tests.alerts.listener import Listener
from tests.alerts.world import World, open_recorder

RULES = """
[[rules]]
alert = "OnSecondary"
expr = 'active_model == "secondary"'
labels = { severity = "critical" }
annotations = { summary = "{{ manager }} is on its secondary" }
"""


def settings(url: str, extra: str = "") -> str:
    return f"""
[alerts]
evaluate_every = "200ms"
group_wait = 0
group_interval = "100ms"
{extra}
[[alerts.receivers]]
name = "ops"
kind = "webhook"
url = "{url}"
allow_private = true
"""


def test_an_alert_is_delivered_and_its_resolution_too(make_config: Callable[..., Config], tmp_path: Path) -> None:
    (tmp_path / "alerts.toml").write_text(RULES)
    recorder = open_recorder(tmp_path)
    world = World(recorder, SystemClock())
    with Listener() as ops:
        service = AlertService(make_config(settings(ops.url)), recorder, owner="a")
        service.start()
        try:
            assert service.health().part is Part.EVALUATOR
            world.agree("secondary")
            (letter,) = ops.wait_for(1)
            assert letter.json["status"] == "firing"
            assert letter.json["commonAnnotations"] == {"summary": "chat is on its secondary"}
            world.agree("primary")
            letters = ops.wait_for(2)
            assert letters[1].json["status"] == "resolved"
            assert letters[0].headers["webhook-id"] != letters[1].headers["webhook-id"]
            assert service.health().ok
        finally:
            service.stop()
            recorder.close()
    assert [row[0] for row in world.rows("SELECT state FROM outbox")] == ["delivered", "delivered"]
