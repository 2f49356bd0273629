"""Where the files of `data/` are: beside the packages in a checkout, inside `engine` in an installed wheel."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent
_FOLDERS = (_HERE.parent / "data", _HERE / "data")


def shipped(name: str) -> Path:
    """Find a shipped file.

    Args:
        name: Its path below `data/`, such as `models.toml`.

    Returns:
        The path of the file.

    Raises:
        FileNotFoundError: The installation is incomplete.
    """
    for folder in _FOLDERS:
        path = folder / name
        if path.exists():
            return path
    msg = f"the installation lacks data/{name}: install Switchgear again"
    raise FileNotFoundError(msg)
