"""Everything is said in pyproject.toml but one thing: a wheel carries `data/` inside the `engine` package.

In a checkout, also an editable one, `engine.shipped` finds the folder where it lies.
"""

from pathlib import Path
from shutil import copytree

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithData(build_py):
    def run(self):
        super().run()
        if not self.editable_mode:
            wanted = ("*.toml", "*.json", "*.yml")
            source = Path(__file__).parent / "data"
            copytree(source, Path(self.build_lib) / "engine" / "data", ignore=_all_but(wanted), dirs_exist_ok=True)


def _all_but(patterns):
    def ignored(folder, names):
        paths = [Path(folder) / name for name in names]
        return [path.name for path in paths if not path.is_dir() and not any(path.match(p) for p in patterns)]

    return ignored


setup(cmdclass={"build_py": BuildWithData})
