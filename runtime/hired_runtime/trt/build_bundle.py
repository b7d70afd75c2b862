"""A bundle's graphs -> `engines/<folder>/`: every engine, then the record, then the folder takes its place as one.

On a machine with the GPU that they are for, the bundle's golden inputs are replayed through them before that, and the
record says how that went. The manifest never changes.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from hired_edge import __version__, strict
from hired_edge.bundle import Bundle
from hired_edge.engine_check import Machine, rebuild_command
from hired_edge.engine_record import FORMAT_VERSION, RECORD_NAME, EngineFile, EngineRecord, GoldenCheck
from hired_edge.errors import BundleError, InputError
from hired_edge.manifest import ENGINES_FOLDER, Graph
from hired_runtime import golden
from hired_runtime.backend import Backend
from hired_runtime.trt.build_engine import BuildOptions, build_engine
from hired_runtime.trt.engines_folder import put_in_place, remove, written
from hired_runtime.trt.module import Library
from hired_runtime.trt.profiles import PREFILL, Profile, language_profiles, longest_prompt, vision_profiles
from hired_runtime.trt.progress import OnProgress

Show = Callable[[str], AbstractContextManager[OnProgress | None]]
"""Makes what shows the progress of one engine, by its name."""
OnBuilt = Callable[[EngineFile], None]


@dataclass(frozen=True)
class Plan:
    """What to build, and where.

    Args:
        graphs: of the bundle's manifest.
        batch: rows of the language engines.
        force: whether engines that are there are replaced.
    """

    machine: Machine
    graphs: tuple[Graph, ...]
    batch: int
    force: bool

    def folder(self, bundle: Bundle) -> Path:
        return bundle.root / ENGINES_FOLDER / self.machine.folder


def build_bundle(
    bundle: Bundle, library: Library, plan: Plan, options: BuildOptions, show: Show, on_built: OnBuilt
) -> EngineRecord:
    """Builds every engine of the plan, and checks them where they are for this GPU; engines that fail the check stay,
    and are refused from then on. On an error or Ctrl-C the bundle stays as it was, the engines that it had included.

    Raises:
        BundleError: a graph cannot be built, an engine not loaded, or the engines folder not written.
        InputError: engines for this machine are there already, or the engines folder is a link.
    """
    folder = plan.folder(bundle)
    if folder.parent.is_symlink():
        raise InputError(
            f"{folder.parent} is a link",
            expected="a folder of the bundle, or none yet: engines behind a link are never loaded",
            fix=f"run: hired-edge build {shlex.quote(str(bundle.root))} --clean",
        )
    if os.path.lexists(folder) and not plan.force:
        raise InputError(
            f"{folder} is there already",
            expected="no engines for this machine yet",
            fix=f"use them, or run: {rebuild_command(bundle.root, None if _here(options) else options.sm)}",
        )
    with written(folder.parent), put_in_place(folder) as partial:
        engines = []
        for graph in plan.graphs:
            with show(_name(graph)) as on_progress:
                built = build_engine(
                    library,
                    bundle.path(graph.file),
                    _profiles(bundle, graph, plan.batch),
                    partial / f"{_name(graph)}.engine",
                    options,
                    on_progress,
                )
            engine = EngineFile(
                piece="vision" if graph.max_sequence_length is None else "language",
                file=f"{_name(graph)}.engine",
                bytes=built.bytes,
                sha256=built.sha256,
                graph=graph.file,
                sources={name: bundle.manifest.files[name].sha256 for name in (graph.file, *graph.data)},
                profiles=_profiles(bundle, graph, plan.batch),
                max_sequence_length=graph.max_sequence_length,
            )
            engines.append((engine, built.flags))
            on_built(engine)
        device = options.device if _here(options) else None
        record = EngineRecord(
            format_version=FORMAT_VERSION,
            producer=f"hired-edge {__version__}",
            module=library.name,
            version=library.version,
            sm=options.sm,
            device=device.name if device else None,
            driver=device.driver if device else None,
            flags=engines[0][1],
            engines=tuple(engine for engine, _ in engines),
            check=None,
        )
        (partial / RECORD_NAME).write_text(strict.dumps(record), encoding="utf-8")
        if device is not None:
            record = check_engines(bundle, partial, record)
    return record


def check_engines(bundle: Bundle, folder: Path, record: EngineRecord) -> EngineRecord:
    """Replays the golden inputs through all engines that were just built, and writes down how it went.

    Args:
        folder: in which they lie, with their record.

    Returns:
        The record with its check.

    Raises:
        BundleError: an engine cannot be loaded.
        OSError: the record cannot be written.
    """
    bundle = replace(bundle, check=None)  # nobody can have signed yet what was just built here
    errors, tolerances, reason = {}, {}, ""
    lengths = sorted(each.max_sequence_length for each in record.engines if each.max_sequence_length is not None)
    for slots in lengths:  # an opening takes the shortest cache that is long enough: each engine in its turn
        engines = _loaded(bundle, folder, slots)
        try:
            for result in golden.replay(bundle, engines):
                errors[result.piece] = max(result.error, errors.get(result.piece, 0.0))
                tolerances[result.piece] = result.tolerance
        except BundleError as error:
            reason = f"{error.got}; expected {error.expected}"
            break
        finally:
            engines.close()
    checked = replace(record, check=GoldenCheck("failed" if reason else "passed", errors, tolerances, reason))
    (folder / RECORD_NAME).write_text(strict.dumps(checked), encoding="utf-8")
    return checked


def _loaded(bundle: Bundle, folder: Path, slots: int) -> Backend:
    from hired_runtime.trt import backend

    try:
        return backend.load(bundle, golden.limits(bundle.manifest, slots), folder)
    except BundleError as error:
        raise BundleError(
            f"the engines with a cache of {slots} tokens cannot be checked: {error.got}",
            expected=error.expected,
            fix="end other programs, or build for less: --visual-tokens with the budgets that fit, --max-batch",
        ) from None


def remove_engines(bundle: Bundle) -> int:
    """Removes everything that was built, whatever machine it was for; returns how many bytes that gave back.

    Raises:
        BundleError: it cannot be removed.
    """
    folder = bundle.root / ENGINES_FOLDER
    with written(folder):
        size = 0 if folder.is_symlink() else sum(path.lstat().st_size for path in folder.rglob("*"))
        remove(folder)
    return size


def _here(options: BuildOptions) -> bool:
    """Whether the GPU that is built for is the one that is present."""
    return options.device is not None and options.device.sm == options.sm


def _name(graph: Graph) -> str:
    return "vision" if graph.max_sequence_length is None else f"language-{graph.max_sequence_length}"


def _profiles(bundle: Bundle, graph: Graph, batch: int) -> tuple[Profile, ...]:
    manifest, slots = bundle.manifest, graph.max_sequence_length
    if slots is None:
        return vision_profiles(manifest.vision.tiling.image_size, manifest.limits.tiles)
    prompt = longest_prompt(manifest.limits, slots)
    both = language_profiles(manifest.text, graph.inputs, batch=batch, prompt=prompt, max_sequence_length=slots)
    # TensorRT-RTX stores fp16 weights once a profile (4096 x 4096: 33.6 MB with one, 67.1 MB with two); others once.
    return both if manifest.quantisation.bits < 16 else both[PREFILL:]
