"""What docs/trust.md tells a reader to type, typed, in its order."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hired_runtime.commands import options
from tests.device.conftest import BUNDLE
from tests.tiny import engine_records, keys
from tests.tiny.processes import PATIENCE_S

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/trust.md"
SIGNED_ENGINES = "hired-edge sign bundle --engines --require-signature vendor.pub --key board"
"""What stands for the page's build, which needs TensorRT: engines that are arbitrary bytes are there already."""


def code(language: str) -> list[str]:
    """Blocks of the page. The tests of the installed wheel run in a copy without it."""
    if not PAGE.is_file():
        assert not (ROOT / "hired_edge").is_dir()
        return []
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_every_command_works_in_the_pages_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = [line for block in code("sh") for line in block.splitlines() if not line.startswith("pip install")]
    if not commands or not (keys.HAS_OPENSSL and keys.HAS_SSH_KEYGEN):
        return
    shutil.copytree(BUNDLE, tmp_path / "bundle")
    shutil.copyfile(ROOT / "demo/pictures/coffee.jpg", tmp_path / "table.jpg")
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    outputs: dict[str, str] = {}
    for command in commands:
        if command.startswith("hired-edge build"):
            engine_records.write_for(tmp_path / "bundle")
        done = subprocess.run(
            ["bash", "-c", SIGNED_ENGINES if command.startswith("hired-edge build") else command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        outputs[command] = done.stdout
    assert len(outputs) == len(commands) > 12
    said = "\n".join(outputs.values())
    for words in (
        "Signature Verified Successfully",
        "signed by vendor.pub (",
        "engine.json: by board.pub (",
        "replaced ",
    ):
        assert words in said
    monkeypatch.chdir(tmp_path)
    for block in code("python"):
        exec(compile(block, str(PAGE), "exec"), {})


def test_the_commands_with_the_option_are_those_that_the_page_names() -> None:
    if not PAGE.is_file():
        return
    (sentence,) = re.findall(r"`--require-signature` is an option of (.*?)\.\s", PAGE.read_text(), re.DOTALL)
    folder = Path(options.__file__).parent
    having = [
        path.stem
        for path in folder.glob("*.py")
        if path.name != "options.py" and re.search(r"options\.add_(bundle|signature)\(", path.read_text())
    ]
    assert sorted(re.findall(r"`(\w+)`", sentence)) == sorted(having)
