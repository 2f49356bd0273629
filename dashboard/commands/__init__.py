"""The subcommands of `switchgear`, one module each; the table of them is `dashboard.cli.COMMANDS`.

To add one, write a module with a click command named `command` and a line in the table. A command returns nothing
or raises; to answer no, it calls `ctx.exit(1)`.
"""
