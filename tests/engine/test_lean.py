"""What is left out of an import is left out for that import and that thread only."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from engine.lean import without


def test_a_package_is_absent_inside_the_block_and_there_again_after_it() -> None:
    with without("this"), pytest.raises(ModuleNotFoundError):
        importlib.import_module("this")
    assert not [finder for finder in sys.meta_path if type(finder).__module__ == "engine.lean"]


def test_another_thread_imports_it_as_ever(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "optional_package.py").write_text("value = 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    with without("optional_package"):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("optional_package")
        thread = threading.Thread(target=lambda: found.append(importlib.import_module("optional_package").value))
        thread.start()
        thread.join()
    sys.modules.pop("optional_package", None)
    assert found == [7]


def test_a_gateway_with_a_fresh_store_carries_neither_pandas_nor_numpy(tmp_path: Path) -> None:
    program = (
        "import sys; import dashboard.serving; from engine.store import Store\n"
        f"Store({str(tmp_path / 'fresh.db')!r}).open()\n"
        "heavy = {'pandas', 'numpy', 'pyarrow', 'streamlit', 'plotly'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
