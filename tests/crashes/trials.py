"""One command killed once: what is there then, and what the same command makes of it."""

from __future__ import annotations

import random
import re
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tests.crashes.cases import DONE, OLD, Case, check_sound, constant, listing
from tests.crashes.processes import NEVER, Ended, Launcher, Moment

NEW, MIXED = "the new result", "old and new files"
_NEVER = re.compile("(?!)")
_ENDINGS = {0: re.compile(""), 2: re.compile("hired-edge: error: [^\n]+\n")}
"""What a command says on stderr where the disk is full, by its status."""


class CrashError(AssertionError):
    """What must never be there after a kill."""


class Scene:
    """A command, where it starts from, and an undisturbed run of it to compare with.

    Args:
        launcher: of the commands.
        case: the command.
        start: NOTHING, or OLD: an older result is there.
        base: an empty folder.
        inputs: what `case.inputs` has filled.
        disk: the folder in which the command works; None = in `base`.
    """

    def __init__(
        self, launcher: Launcher, case: Case, start: str, base: Path, inputs: Path, disk: Path | None = None
    ) -> None:
        self.case, self.start, self._launcher, self._base, self._inputs = case, start, launcher, base, inputs
        self._template, self.folder = base / "start", (base if disk is None else disk) / "work"
        self._template.mkdir(parents=True)
        case.start(inputs, self._template)
        if start == OLD:
            assert case.old is not None
            self._whole(launcher.run(case.old(inputs, self._template), self._template, warm=case.warm))
        self._before = case.result(self._template)
        self._fresh()
        self._whole(self.run())  # which reads for the first time what the next one has in memory
        self._fresh()
        self.usual = self._whole(self.run())
        self._new, self._listing = constant(case.result(self.folder)), listing(self.folder)
        check_sound(case.result(self.folder), self.folder)
        assert self._new != constant(self._before)

    def run(self, moment: Moment = NEVER, *, warm: bool = True) -> Ended:
        words = self.case.argv(self._inputs, self.folder)
        return self._launcher.run(words, self.folder, moment, warm=warm and self.case.warm)

    def moments(self, count: int, draw: random.Random) -> Iterator[Moment]:
        """Half of them spread over the time from the first step on, half over the steps; a draw in each part."""
        seconds, steps = count - count // 2, count // 2
        for part in range(seconds):
            yield Moment(seconds=self.usual.seconds * (part + draw.random()) / seconds)
        for part in range(steps):
            yield Moment(step=1 + int(self.usual.steps * (part + draw.random()) / steps))

    def trial(self, moment: Moment, *, warm: bool = True) -> str:
        """What is found after a kill: NOTHING, OLD, NEW, or MIXED (files that are each whole, of either result).

        A command that has ended before that moment is run again, and killed earlier.

        Raises:
            CrashError: anything else is found, or the same command does not finish.
        """
        for _ in range(8):
            self._fresh()
            ended = self.run(moment, warm=warm)
            if ended.status == -signal.SIGKILL:
                found = self.found()
                self.finish(found)
                return found
            if ended.status != 0:
                raise CrashError(f"status {ended.status}: {ended.errors}")
            if moment.seconds is None:
                moment = replace(moment, step=ended.steps)
            else:
                moment = replace(moment, seconds=0.8 * min(moment.seconds, ended.seconds))
        raise CrashError("the command always ends before it is killed")

    def disk_full(self, step: int, left: int, ballast: Path | None) -> str:
        """What is found where the disk fills up before a step; with room again, the same command has finished.

        Args:
            left: bytes that can be written still.
            ballast: the file that fills the disk; None = no file can grow beyond `left` bytes.

        Raises:
            CrashError: the command ended in another way than by one line; a half-written file, or neither the old
                result nor the new one is found; the same command does not finish.
        """
        self._fresh()
        try:
            ended = self.run(Moment(step=step, left=left, ballast=None if ballast is None else str(ballast)))
        finally:
            if ballast is not None:
                ballast.unlink(missing_ok=True)
        if not _ENDINGS.get(ended.status, _NEVER).fullmatch(ended.errors):
            raise CrashError(f"status {ended.status}: {ended.errors}")
        found = self.found()
        if found == MIXED or (ended.status == 0 and found != NEW):
            raise CrashError(f"status {ended.status}, {found}: {ended.errors}")
        left_behind = [name for name in listing(self.folder) if name.endswith((".partial", ".old", ".unpacking"))]
        if left_behind:
            raise CrashError(f"{left_behind} were left: {ended.errors}")
        self.finish(found)
        return found

    def found(self) -> str:
        """What lies in the folder; raises CrashError if it is neither."""
        result = self.case.result(self.folder)
        if result == self._before:
            return self.start
        same = constant(result)
        if same == self._new:
            check_sound(result, self.folder)
            return NEW
        odd = [
            name
            for name, content in same.items()
            if content != self._new.get(name) and result[name] != self._before.get(name)
        ]
        if self.case.whole or odd:
            raise CrashError(f"neither the old result nor the new one: {odd or sorted(same)}")
        return MIXED

    def finish(self, found: str) -> None:
        """The same command again; raises CrashError if it does not come to what an undisturbed run does."""
        ended = self.run()
        refused = ended.status == 2 and found == NEW and any(word in ended.errors for word in DONE)
        if ended.status != 0 and not refused:
            raise CrashError(f"the same command ends with {ended.status}: {ended.errors}")
        if constant(self.case.result(self.folder)) != self._new:
            raise CrashError("the same command comes to another result")
        check_sound(self.case.result(self.folder), self.folder)
        litter = listing(self.folder) - self._listing
        if litter:
            raise CrashError(f"the same command leaves {sorted(litter)}")

    def _fresh(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self._template, self.folder)

    def _whole(self, ended: Ended) -> Ended:
        assert ended.status == 0, ended.errors
        return ended
