"""What pyproject.toml cannot say: a wheel carries the compiled client, the specs and examples.

runtime/shipped.py finds them. An editable install takes them from the checkout.
"""

import runpy
import shutil
from pathlib import Path

from setuptools import setup  # type: ignore[import-untyped]
from setuptools.command.build_py import build_py  # type: ignore[import-untyped]

PROJECT = Path(__file__).resolve().parent


class BuildWithFiles(build_py):  # type: ignore[misc]  # setuptools ships no types
    """Adds the files to the packages."""

    def run(self) -> None:
        """Compile and copy."""
        super().run()
        if self.editable_mode:
            return
        files = Path(self.build_lib) / "runtime" / "files"
        shutil.rmtree(files, ignore_errors=True)
        # A script and no package, because it is run before anything is installed.
        try:
            compiler = runpy.run_path(str(PROJECT / "micropython_client" / "build.py"))
        except ModuleNotFoundError as error:
            raise SystemExit(
                f"the wheel carries the compiled client, and {error.name} is missing, which "
                f"compiles it: build with isolation, or install what pyproject.toml requires"
            ) from error
        for architecture in compiler["ARCHITECTURES"]:
            target = files / "client" / architecture
            target.parent.mkdir(parents=True, exist_ok=True)
            compiler["build"](architecture, target)
        shutil.copytree(PROJECT / "specs", files / "specs")
        shutil.copytree(PROJECT / "micropython_client" / "examples", files / "examples")


setup(cmdclass={"build_py": BuildWithFiles})
