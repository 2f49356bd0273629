"""The command `switchgear`: one table of subcommands, each in a module of its own under `dashboard.commands`.

Exit codes: 0 fine, 1 the answer is no, 2 usage or configuration. Errors are lines that say what to change.
A subcommand is imported when it is called, so `switchgear status` does not pay for the dashboard.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from engine.core.errors import ConfigurationError, InvalidRequest, SwitchgearError, UnknownManager
from engine.version import VERSION

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "up": ("dashboard.commands.up:command", "Run gateway, scheduler and dashboard together (--demo to look around)."),
    "serve": ("dashboard.commands.serve:command", "Run gateway, control API, /metrics and scheduler."),
    "dashboard": ("dashboard.commands.dashboard_only:command", "Run the dashboard alone."),
    "watch": ("dashboard.commands.serve:watch_command", "Run scheduler and control API for embedded engines."),
    "status": ("dashboard.commands.status:command", "Say what is active, since when and why."),
    "override": ("dashboard.commands.override:command", "Pin a model by hand, or return to automatic."),
    "alerts": ("dashboard.commands.alerts_cmd:command", "Check and test rules; list alerts, silences, receivers."),
    "export": ("dashboard.commands.export:command", "Write an incident down, to hand over."),
    "doctor": ("dashboard.commands.doctor:command", "Check configuration, keys, store, clocks and coordinator."),
}
"""Every subcommand: where it is, as `module:name`, and what it does."""

DEBUG_VARIABLE: Final = "SWITCHGEAR_DEBUG"
FINE, NO, USAGE, INTERRUPTED = 0, 1, 2, 130


class Commands(click.Group):
    """The table as a click group that imports a subcommand when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The subcommand of a name, `None` when there is none."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        command.short_help = COMMANDS[cmd_name][1]
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, naming the nearest subcommand for an unknown one."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f'did you mean "{near[0]}"?' if near else f"there are {', '.join(COMMANDS)}"
            msg = f'there is no command "{args[0]}": {hint}'
            raise click.UsageError(msg, ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the subcommands from the table, importing none."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(VERSION, prog_name="switchgear", message="%(prog)s %(version)s")
def switchgear() -> None:
    """The control room for applications that run on two models."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What follows the program's name; `None`: those of this process.

    Returns:
        The exit code.
    """
    if os.environ.get(DEBUG_VARIABLE):
        return _code(switchgear.main(arguments, prog_name="switchgear", standalone_mode=False))
    try:
        return _code(switchgear.main(arguments, prog_name="switchgear", standalone_mode=False))
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return USAGE
    except click.ClickException as error:
        return _say(" ".join(error.format_message().split()), USAGE)
    except (ConfigurationError, InvalidRequest, UnknownManager) as error:
        return _say(error.message, USAGE)
    except SwitchgearError as error:
        return _say(error.message, NO)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NO
    except Exception as error:  # noqa: BLE001  # the outermost place: a mistake of ours is one line too
        detail = " ".join(f"{type(error).__name__}: {error}".split())
        return _say(f"a mistake of ours: {detail}: set {DEBUG_VARIABLE}=1 for where it happened, and report it", NO)


def main() -> None:
    """The installed command."""
    code = run()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # nobody reads any more, and Python would end with a code of its own for that
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def _code(result: Any) -> int:
    return result if isinstance(result, int) else FINE


def _say(message: str, code: int) -> int:
    for line in message.splitlines():
        click.echo(f"switchgear: {line}", err=True)
    return code


if __name__ == "__main__":
    main()
