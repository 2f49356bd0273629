"""What was learned about token estimates survives a restart."""

from __future__ import annotations

from collections.abc import Callable

from engine.config import Config
from engine.core.capability import Calibration
from engine.core.messages import Role
from engine.instance import Instance


def test_a_restarted_process_goes_on_with_the_ratios_of_the_last_one(config: Config) -> None:
    first = Instance.open(config)
    calibration = first.exchange("chat").board.lines[Role.PRIMARY].calibration
    first.start()
    for _ in range(200):
        calibration.learn(1000, 1500)
    first.close()
    second = Instance.open(config)
    lines = second.exchange("chat").board.lines
    second.close()
    assert round(lines[Role.PRIMARY].calibration.ratio, 2) == 1.5
    assert lines[Role.SECONDARY].calibration.ratio == 1.0


def test_a_damaged_ratio_is_brought_within_bounds() -> None:
    calibration = Calibration()
    calibration.restore(1e9)
    assert calibration.ratio == Calibration.HIGHEST


def test_it_learns_while_running_and_keeps_it_once_a_minute(make_config: Callable[..., Config]) -> None:
    instance = Instance.open(make_config())
    exchange = instance.exchange("chat")
    for _ in range(200):
        exchange.board.lines[Role.SECONDARY].calibration.learn(100, 50)
    instance.calibrations.turn([exchange], 10.0)
    other = Instance.open(instance.config)
    instance.recorder.execute(lambda connection: None).result(30)
    ratio = other.exchange("chat").board.lines[Role.SECONDARY].calibration.ratio
    instance.close()
    other.close()
    assert round(ratio, 2) == 0.5
