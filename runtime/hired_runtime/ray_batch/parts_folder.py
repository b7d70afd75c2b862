"""The output: a folder of Parquet files, one for each part of the requests, each written whole once its rows are there.

`_commits.jsonl` beside them (readers of Parquet pass over names that begin with `_`) says what run they are of, and
which part is whole with which bytes. A part counts if that line is there and the file is what it says; a crash between
the two costs that part. So every row is in the output once, whoever has answered it how often. Errors are tried again
by a run that goes on, as `batch.answers_file` does it. Written by one process alone. Knows no Ray.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hired_edge.errors import InputError
from hired_runtime.journal import Journal, Words
from hired_runtime.ray_batch.answers_table import Line, answered_lines, table_of
from hired_runtime.ray_batch.parts import Part
from hired_runtime.whole import whole

if TYPE_CHECKING:
    import pyarrow

COMMITS = "_commits.jsonl"
_FORMAT = 1
_WORDS = Words("a record of parts", "a part", "a folder that can be written to, with room", "-o")


class _Commit(NamedTuple):
    sha256: str
    errors: int


class PartsFolder:
    """Locks the folder, which is made if it is not there, and reads what an earlier run has left, unless `restart`.

    A context manager. Answers are held in memory as long as their part is not whole.

    Args:
        folder: where the parts go.
        identity: what answers depend on beside the rows' numbers, plain JSON; `...` for a value that `begin` tells.
        parts: of the requests.
        integers: whether ids are integers, see `answers_table`.
        restart: throw away what an earlier run has left, once this one begins.

    Attributes:
        held: rows that are answered.
        errors: rows that this run has refused; of a finished run, those that it had.
        finished: whether every part is there, of a run of this identity.
        resumed: whether an earlier run has begun there, which this one goes on with.

    Raises:
        InputError: nothing can be written there; another run's answers are there, or what no run has written.
    """

    def __init__(
        self, folder: Path, identity: Mapping[str, Any], parts: Sequence[Part], *, integers: bool, restart: bool = False
    ) -> None:
        self._folder, self._parts, self._integers, self._restart = folder, parts, integers, restart
        self._commits: dict[int, _Commit] = {}
        self._whole: set[int] = set()
        self._open: dict[int, dict[int, Line]] = {}
        self.finished, self.held, self.errors = False, 0, 0
        self._made = _made(folder)
        self._journal = Journal(folder / COMMITS, _WORDS)
        self.resumed = not restart and not self._journal.empty
        try:
            if not restart:
                self._journal.load({"format": _FORMAT, **identity}, self._take)
                self._check()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> PartsFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Parts that were written stay; a folder that nothing came into does not."""
        empty = self._journal.empty and list(self._folder.iterdir()) == [self._journal.path]
        if empty:
            self._journal.path.unlink(missing_ok=True)
        self._journal.close()
        if empty and self._made:
            self._folder.rmdir()

    def begin(self, identity: Mapping[str, Any]) -> None:
        """Before the first row is added.

        Args:
            identity: as at first, with every value.

        Raises:
            InputError: the folder belongs to another run; what is to be thrown away cannot be.
        """
        try:
            for path in self._folder.glob(".part-*.partial"):  # of a process that was killed
                path.unlink()
            if self._restart:
                self._journal.clear()
                for path in self._folder.glob("part-*.parquet"):
                    path.unlink()
        except OSError as error:
            raise self._journal.unusable(error) from None
        self._journal.begin({"format": _FORMAT, **identity})

    def left(self) -> Iterator[tuple[Part, list[int] | None]]:
        """Parts that have rows to be asked, and which ones; None for all."""
        for part in self._parts:
            if part.number in self._whole:
                continue
            have = self._lines(part)
            yield part, [row for row in part.rows if row not in have] if have else None

    def add(self, number: int, row: int, line: Line) -> bool:
        """Keeps a row's line, and writes its part where it is the last one. What is there already is passed over.

        Args:
            number: of the part.

        Returns:
            whether the row was missing.

        Raises:
            InputError: the part cannot be written.
        """
        part = self._parts[number]
        assert row in part.rows
        if number in self._whole:
            return False
        lines = self._open.setdefault(number, self._lines(part))
        if row in lines:
            return False
        lines[row] = line
        if "error" in line:
            self.errors += 1
        else:
            self.held += 1
        if len(lines) == part.count:
            self._write(number, lines)
        return True

    def finish(self) -> None:
        """Says that the run is at its end. Every row was added.

        Raises:
            InputError: that cannot be written.
        """
        assert len(self._whole) == len(self._parts)
        self._journal.append([{"finished": True, "errors": self.errors}])

    def _lines(self, part: Part) -> dict[int, Line]:
        """What there is of a part that is not whole: of one that an earlier run has written, all but its errors."""
        if part.number in self._open:
            return self._open[part.number]
        if part.number not in self._commits:
            return {}
        return dict(answered_lines(self._read(part.number)))

    def _write(self, number: int, lines: Mapping[int, Line]) -> None:
        import pyarrow.parquet

        path = self._path(number)
        buffer = io.BytesIO()
        pyarrow.parquet.write_table(table_of(lines, self._integers), buffer, compression="zstd")
        data = buffer.getvalue()
        try:
            with whole(path) as partial, partial.open("wb") as file:
                file.write(data)
        except OSError as error:
            raise self._journal.unusable(error) from None
        errors = sum("error" in line for line in lines.values())
        self._journal.append([{"part": number, "sha256": hashlib.sha256(data).hexdigest(), "errors": errors}])
        self._whole.add(number)
        self._commits.pop(number, None)
        del self._open[number]

    def _read(self, number: int) -> pyarrow.Table:
        import pyarrow.parquet

        return pyarrow.parquet.ParquetFile(self._path(number)).read()

    def _path(self, number: int) -> Path:
        return self._folder / f"part-{number:06d}.parquet"

    def _take(self, line: Any, begin: int) -> bool:
        match line:
            case {"part": int(number), "sha256": str(sha256), "errors": int(errors)} if (
                0 <= number < len(self._parts) and 0 <= errors <= self._parts[number].count
            ):
                self._commits[number] = _Commit(sha256, errors)
                return not self.finished
            case {"finished": True, "errors": int(errors)}:
                self.finished = len(self._commits) == len(self._parts)
                return self.finished
            case _:
                return False

    def _check(self) -> None:
        """Holds what the commits say against the files."""
        for number, commit in list(self._commits.items()):
            path = self._path(number)
            if _sha256(path) != commit.sha256:
                if self.finished:
                    raise InputError(
                        f"{path} was changed since its run has written it",
                        expected="it as it was, or none of the parts",
                        fix="pass another -o, or --restart to throw its answers away",
                    )
                del self._commits[number]  # killed between the file and its line: this part is asked again
                continue
            self.held += self._parts[number].count - commit.errors
            if self.finished or not commit.errors:
                self._whole.add(number)
                del self._commits[number]
                self.errors += commit.errors


def _made(folder: Path) -> bool:
    """Makes a folder, and says whether it was not there."""
    try:
        folder.mkdir()
        return True
    except FileExistsError:
        if folder.is_dir() and ((folder / COMMITS).is_file() or not any(folder.iterdir())):
            return False
        got = f"{folder} is there already, and no run has written it"
    except OSError as error:
        got = f"{folder} cannot be written ({error.strerror})"
    raise InputError(got, expected="no folder, or the parts of an earlier run", fix="pass another -o, or move it away")


def _sha256(path: Path) -> str | None:
    """None where there is no such file."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while data := file.read(2**20):
                digest.update(data)
    except OSError:
        return None
    return digest.hexdigest()
