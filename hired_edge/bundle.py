"""A bundle on disk: opened, and verified before anything in it is loaded.

`Bundle.open` reads the manifest and holds every file against it: presence, size, sha256, no link that leads out, no
file that neither the manifest nor an engine's record names (`hired_edge.layout`), no ONNX external data outside the
bundle. Engines describe themselves and are checked when they are loaded (`hired_edge.engine_check`). This module loads
no graph and no tensor.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from hired_edge import layout, strict
from hired_edge.errors import BundleError
from hired_edge.filenames import beside, check_file_name
from hired_edge.hashing import CheckDocument, HashFile, OnBytes, file_record, readable
from hired_edge.manifest import MANIFEST_NAME, FileRecord, Graph, Manifest, parse_manifest
from hired_edge.onnx_locations import external_locations
from hired_edge.plan import memory_plan
from hired_edge.strict import MEND, one_line, show

MAX_MANIFEST_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Bundle:
    """A folder whose manifest was read, and, unless told otherwise, whose files were verified."""

    root: Path
    manifest: Manifest
    check: CheckDocument | None = None
    """What its manifest has passed, and every engine's record has to pass before it is used."""

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        verify: bool = True,
        on_bytes: OnBytes | None = None,
        hash_file: HashFile = file_record,
        check: CheckDocument | None = None,
        engines: bool = True,
    ) -> Bundle:
        """Read a bundle's manifest and check its files.

        Args:
            path: the bundle's folder.
            verify: whether to hash the files. Names, sizes and external data are checked either way, since that costs
                nothing.
            on_bytes: progress of the hashing; the total is `bundle_bytes(manifest)`.
            hash_file: what hashes a file.
            check: of the manifest's bytes, and later of those of the engines' records.
            engines: whether `engines/` is held against its records; what is about to replace them does without.

        Raises:
            BundleError: anything is missing, unreadable, corrupt, edited, in the way, or of another format version; or
                whatever `check` refuses.
        """
        root = Path(path)
        bundle = cls(root, read_manifest(root, check), check)
        bundle.check_layout()
        if engines:
            layout.check_engines(root)
        if verify:
            bundle.check_hashes(on_bytes, hash_file)
        bundle.check_external_data()
        return bundle

    def path(self, name: str) -> Path:
        """Where a file of the bundle lies. `name` is one of the manifest's."""
        assert name in self.manifest.files, name
        return self.root / name

    def verify(self, on_bytes: OnBytes | None = None) -> None:
        """Everything that `open` checks, once more.

        Raises:
            BundleError: as for `open`; also if the manifest was edited since.
        """
        if read_manifest(self.root, self.check) != self.manifest:
            _refuse(f"{self.root}/{MANIFEST_NAME} was replaced while the bundle was open", "the one that was opened")
        self.check_layout()
        layout.check_engines(self.root)
        self.check_hashes(on_bytes)
        self.check_external_data()

    def check_layout(self) -> None:
        """Every named file is there, with its size, inside the bundle; and nothing else is, `engines/` apart."""
        with readable(self.root):
            inside = self.root.resolve(strict=True)
        for name, record in self.manifest.files.items():
            with readable(self.root / name):
                _check_file(self.root / name, record.bytes, inside)
        layout.check_portable(self.root, self.manifest.files)

    def check_hashes(self, on_bytes: OnBytes | None = None, hash_file: HashFile = file_record) -> None:
        """Every file's sha256 is the manifest's."""
        for name, record in self.manifest.files.items():
            digest = hash_file(self.root / name, on_bytes).sha256
            if digest != record.sha256:
                _refuse(f"{self.root / name} was changed (sha256 {digest[:12]}...)", f"sha256 {record.sha256[:12]}...")

    def check_external_data(self) -> None:
        """Each graph's external tensors lie in the files that the manifest declares for it."""
        for graph in self.manifest.graphs:
            _check_graph(self.root, graph)


def read_manifest(root: Path, check: CheckDocument | None = None) -> Manifest:
    """Read and check `manifest.json` of the bundle at `root`, and nothing else.

    Args:
        root: the bundle's folder.
        check: of the very bytes that are then parsed.

    Raises:
        BundleError: no such folder or manifest, a link, too large, unreadable, or anything that `check` or
            `parse_bytes` refuses.
    """
    path = root / MANIFEST_NAME
    with readable(path):
        if not root.exists():
            raise BundleError(f"{root} does not exist", expected="a bundle's folder", fix="check the path")
        if not root.is_dir():
            raise BundleError(f"{root} is a file", expected="a bundle's folder", fix="pass the folder that holds it")
        if not path.is_file():
            raise BundleError(
                f"{root} has no {MANIFEST_NAME}",
                expected="a bundle",
                fix="pass a folder that hired-edge export wrote",
            )
        if path.is_symlink():
            _refuse(f"{path} is a link", "a file of the bundle")
        with path.open("rb") as file:
            data = file.read(MAX_MANIFEST_BYTES + 1)
    if len(data) > MAX_MANIFEST_BYTES:
        _refuse(f"{path} is larger than {MAX_MANIFEST_BYTES} bytes", "a manifest")
    if check is not None:
        check(path, data)
    return parse_bytes(data, path)


def parse_bytes(data: bytes, path: Path) -> Manifest:
    """The manifest that these bytes of `path` are.

    Raises:
        BundleError: not text, edited, or anything that `parse_manifest` refuses.
    """
    try:
        manifest = parse_manifest(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BundleError(f"{path} is not text ({one_line(error)})", expected="JSON in UTF-8", fix=MEND) from None
    if manifest.digest != manifest.computed_digest():
        _refuse(f"{path} was edited (its digest is not that of its contents)", "the manifest that the export wrote")
    return manifest


def write_manifest(
    root: Path, manifest: Manifest, on_bytes: OnBytes | None = None, known: Mapping[str, FileRecord] | None = None
) -> Manifest:
    """Complete a manifest with the files under `root`, check it and write it. The last step of an export.

    Args:
        root: a folder that holds the bundle's files.
        manifest: its `files`, `memory` and `digest` are ignored.
        on_bytes: progress of the hashing.
        known: of files that were hashed while they were written, and need not be read again.

    Returns:
        The manifest as written.

    Raises:
        BundleError: a rule of the manifest is broken, or a file's name or an external-data location is not allowed.
        OSError: the file could not be written.
    """
    names = [check_file_name(name) for name in sorted(layout.portable_files(root))]
    for name in names:
        if (root / name).is_symlink():
            _refuse(f"{root / name} is a link", "files")
    known = known or {}
    records = {name: known.get(name) or file_record(root / name, on_bytes) for name in names}
    complete = replace(manifest, files=records)
    complete = replace(complete, memory=memory_plan(complete)).validate()
    complete = replace(complete, digest=complete.computed_digest())
    for graph in complete.graphs:
        _check_graph(root, graph)
    text = strict.dumps(complete)
    assert parse_manifest(text) == complete, "a manifest must read back as it was written"
    temporary = root / f"{MANIFEST_NAME}.tmp"
    temporary.write_text(text, encoding="utf-8", newline="\n")
    temporary.replace(root / MANIFEST_NAME)
    return complete


def bundle_bytes(manifest: Manifest) -> int:
    """Bytes of all files that the manifest names."""
    return sum(record.bytes for record in manifest.files.values())


def _check_file(path: Path, size: int, inside: Path) -> None:
    if not path.resolve().is_relative_to(inside):
        _refuse(f"{path} is a link out of the bundle", "files that lie inside it")
    if not path.exists():
        _refuse(f"{path} is missing", f"{size} bytes")
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        _refuse(f"{path} is not a file", f"a file of {size} bytes")
    if status.st_size != size:
        _refuse(f"{path} has {status.st_size} bytes", f"{size}")


def _check_graph(root: Path, graph: Graph) -> None:
    for location in sorted(external_locations(root / graph.file)):
        if beside(graph.file, location) not in graph.data:
            _refuse(f"{graph.file} reads {show(location)}", f"its declared data: {', '.join(graph.data) or 'none'}")


def _refuse(got: str, expected: str) -> NoReturn:
    raise BundleError(got, expected=expected, fix=MEND)
