"""A folder of recorded outputs in a machine's place: `root/` has its files, `commands/` what its commands printed."""

from __future__ import annotations

from pathlib import Path

from hired_runtime.board.machine import Machine, Output

FOLDER = Path(__file__).parent


class Recorded(Machine):
    """One of the folders beside this file (SOURCES.md names where each is from). What was not recorded is missing."""

    def __init__(self, name: str) -> None:
        self.folder = FOLDER / name
        assert self.folder.is_dir(), name
        super().__init__(self.folder / "root")

    def command(self, *argv: str, timeout_s: float = 10.0) -> Output | None:
        suffix = ".csv" if "--format=csv" in argv else ""
        path = self.folder / "commands" / f"{Path(argv[0]).name}{suffix}"
        return Output(0, path.read_text()) if path.is_file() else None
