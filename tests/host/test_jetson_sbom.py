"""jetson/sbom.py lists what the board's wheels bring, by CycloneDX's own schema."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from jetson import sbom
from tests.host.environments import wheel
from tests.host.test_jetson_wheels import ARM, make


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """The real wheel of this tree, and some of a board that hold their metadata alone."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    shutil.copy(wheel(), folder)
    make(folder, "numpy", version="2.2.6", tag=f"cp310-cp310-{ARM}")
    make(folder, "jinja2", "markupsafe>=2", version="3.1.6")
    make(folder, "markupsafe", version="3.0.4", tag=f"cp310-cp310-{ARM}")
    return folder


def test_every_wheel_is_listed_with_what_it_needs(wheels: Path) -> None:
    sbom.main(["jp6", "--wheels", str(wheels)])
    text = (wheels / sbom.NAME).read_text(encoding="utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    listed = json.loads(text)
    assert listed["bomFormat"] == "CycloneDX"
    found = {each["name"]: each for each in listed["components"]}
    assert set(found) == {"jinja2", "markupsafe", "numpy"}
    assert found["numpy"]["purl"] == "pkg:pypi/numpy@2.2.6"
    assert listed["metadata"]["component"]["name"] == "hired-edge"
    needs = {each["ref"]: each.get("dependsOn", []) for each in listed["dependencies"]}
    assert needs["jinja2==3.1.6"] == ["markupsafe==3.0.4"]
    assert {"jinja2==3.1.6", "numpy==2.2.6"} <= set(needs["root-component"])


def test_the_same_wheels_give_the_same_bytes(wheels: Path) -> None:
    sbom.main(["jp6", "--wheels", str(wheels)])
    first = (wheels / sbom.NAME).read_bytes()
    sbom.main(["jp6", "--wheels", str(wheels)])
    assert (wheels / sbom.NAME).read_bytes() == first


def test_a_folder_without_wheels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no wheel of hired-edge in .*run: python jetson/wheels.py jp7"):
        sbom.main(["jp7", "--wheels", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []
