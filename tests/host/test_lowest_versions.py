"""tests/device on the oldest supported versions of everything: the lower bounds that pyproject.toml itself states."""

from __future__ import annotations

import re
from pathlib import Path

from tests.host.environments import checked, environment, pins, pyproject, python_310, run_device_tests


def lowest(requirements: list[str]) -> list[str]:
    """`numpy>=1.26` becomes `numpy==1.26`, which pip takes as 1.26.0."""
    return [re.sub(r"^([\w-]+)>=([\d.]+)$", r"\1==\2", requirement) for requirement in requirements]


def test_the_device_tests_pass_on_the_oldest_supported_versions(tmp_path: Path) -> None:
    project = pyproject()["project"]
    extras = project["optional-dependencies"]
    oldest = lowest([*project["dependencies"], *extras["cpu"], *extras["eval"]])
    assert all("==" in requirement for requirement in oldest)
    python = environment("lowest", [*oldest, *pins("pytest", "hypothesis")], python_310())
    versions = "import sys, numpy, PIL; print(sys.version.split()[0], numpy.__version__, PIL.__version__)"
    print("Python, numpy, pillow:", checked(python, "-c", versions))
    print(run_device_tests(python, tmp_path))
