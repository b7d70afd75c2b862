"""One ONNX file and its profiles -> one serialised engine on disk, whole or not at all.

The build runs in a thread of its own, so that Ctrl-C is noticed at once and ends it at its next step. TensorRT's C++
objects refer to each other without keeping each other alive: every one of them is a local of `_build`, which outlives
the build; the parser too, since the network's weights lie in its memory. What a bundle is, this module does not know.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hired_edge.engine_record import ShapeRange
from hired_edge.errors import BundleError, InputError
from hired_runtime.trt import log, module, progress
from hired_runtime.trt.device import Device
from hired_runtime.trt.module import Library
from hired_runtime.whole import whole

TARGETS = "export again for it: --target jp7 for TensorRT 10.15 and newer, --target jp6 for 10.3"


@dataclass(frozen=True)
class BuildOptions:
    """What a build is told.

    Args:
        sm: to build for; from `choose_sm`.
        device: the GPU that is present.
        workspace: bytes of scratch memory that a kernel may ask for; None = TensorRT's default, all there is.
        timing_cache: measured kernels, read if it is there and written again; ignored by a library without one.
        log_file: TensorRT's log is appended to it.
    """

    sm: int
    device: Device | None
    workspace: int | None = None
    timing_cache: Path | None = None
    log_file: Path | None = None


@dataclass(frozen=True)
class BuiltEngine:
    """What lies on disk now; `flags` are the builder's."""

    bytes: int
    sha256: str
    flags: tuple[str, ...]


@dataclass
class _Job:
    library: Library
    onnx: Path
    profiles: Sequence[Mapping[str, ShapeRange]]
    target: Path
    options: BuildOptions
    on_progress: progress.OnProgress | None
    stop: threading.Event = field(default_factory=threading.Event)
    errors: log.LastErrors = field(default_factory=log.LastErrors)


def build_engine(
    library: Library,
    onnx: Path,
    profiles: Sequence[Mapping[str, ShapeRange]],
    target: Path,
    options: BuildOptions,
    on_progress: progress.OnProgress | None = None,
) -> BuiltEngine:
    """Builds an engine; `target` is replaced when it is done, and stays as it was otherwise.

    Args:
        library: from `module.load`.
        onnx: the graph, its external data beside it.
        profiles: one or more; every input of the graph in each.
        target: the engine's file.
        options: see there.
        on_progress: called from the build's thread.

    Raises:
        BundleError: the graph cannot be parsed or built, or a profile does not fit it.
        InputError: the timing cache cannot be read.
        OSError: a file could not be written.
        KeyboardInterrupt: Ctrl-C, once TensorRT has stopped.
    """
    job = _Job(library, onnx, profiles, target, options, on_progress)
    result: list[BuiltEngine | BaseException] = []
    begun, done = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        try:
            result.append(_build(job))
        except BaseException as error:
            # An error holds the frames that it passed, and they hold TensorRT's objects. Those must go now: were they
            # left to the garbage collector, it might destroy a builder from inside the next one's logger, which is
            # called under a lock that both need.
            traceback.clear_frames(error.__traceback__)
            result.append(error)
        finally:
            done.set()

    gc.collect()  # for the same reason: what others left behind
    thread = threading.Thread(target=work, name=f"build {target.name}")
    try:
        thread.start()
        while not done.wait(
            0.1
        ):  # not `join`: up to Python 3.12, a join that Ctrl-C strikes takes the thread for ended
            pass
    except BaseException:  # Ctrl-C, in `start` too: the build stops at its next step, and writes nothing
        job.stop.set()
        if begun.wait(1.0):
            done.wait()
            thread.join()
        raise
    thread.join()
    (outcome,) = result
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def _build(job: _Job) -> BuiltEngine:
    trt, options = job.library.trt, job.options
    with contextlib.ExitStack() as stack:
        file = log.open_log(options.log_file)
        if file is not None:
            stack.enter_context(file)
            file.write(f"--- {job.library}, SM {options.sm}: {job.onnx}\n")
        logger = log.logger(trt, job.errors, file)
        builder = trt.Builder(logger)
        network = module.create_network(job.library, builder)
        parser = trt.OnnxParser(network, logger)
        if job.on_progress is not None:
            job.on_progress(f"reading {job.onnx.name}", 0)
        if not parser.parse_from_file(str(job.onnx)):
            raise _not_parsed(job, parser)
        module.allow_decomposed_attention(job.library, network)
        config = builder.create_builder_config()
        monitor = progress.monitor(trt, job.on_progress, job.stop)
        config.progress_monitor = monitor
        if options.workspace is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace)
        module.set_target(job.library, config, options.sm, options.device)
        flags = module.set_flags(job.library, config)
        _add_profiles(job, builder, network, config)
        with _timing_cache(job, config):
            serialised = builder.build_serialized_network(network, config)
            if serialised is None:
                raise monitor.failure or _not_built(job)
            if job.stop.is_set():
                raise _not_built(job)
            engine = _write(job.target, serialised)  # before the timing cache, which may not be writable
        # In this order, and not before: each refers to what stands after it.
        del serialised, config, parser, network, builder, monitor, logger
    return BuiltEngine(*engine, flags)


def _write(target: Path, serialised: Any) -> tuple[int, str]:
    content = memoryview(serialised)
    with whole(target) as partial:
        partial.write_bytes(content)
    size, digest = content.nbytes, hashlib.sha256(content).hexdigest()
    content.release()  # a view must not outlive the memory that TensorRT owns
    return size, digest


def _add_profiles(job: _Job, builder: Any, network: Any, config: Any) -> None:
    """Adds every profile, or says why TensorRT would not take it: by itself it drops a wrong one without a word."""
    inputs = {tensor.name: tuple(tensor.shape) for tensor in map(network.get_input, range(network.num_inputs))}
    for number, ranges in enumerate(job.profiles):
        if ranges.keys() != inputs.keys():
            odd = sorted(ranges.keys() ^ inputs.keys())[0]
            raise _misfit(job, f"profile {number} and the graph differ in the input {odd}", "the same inputs in both")
        profile = builder.create_optimization_profile()
        for name, shapes in ranges.items():
            if len(shapes.min) != len(inputs[name]) or any(
                size >= 0 and not low == size == high
                for low, size, high in zip(shapes.min, inputs[name], shapes.max, strict=True)
            ):
                got = f"profile {number} gives {name} the shapes {shapes.min} to {shapes.max}"
                raise _misfit(job, got, f"{inputs[name]}, where -1 may be any size")
            profile.set_shape(name, shapes.min, shapes.opt, shapes.max)
        if config.add_optimization_profile(profile) != number:
            raise _misfit(job, f"{job.library} refuses profile {number} ({job.errors.reason()})", "shapes that fit")


@contextlib.contextmanager
def _timing_cache(job: _Job, config: Any) -> Iterator[None]:
    """Sets the cache that is kept in a file, if any; after a build that went well it is written again."""
    path = job.options.timing_cache
    if path is None or not job.library.timing_cache:
        yield
        return
    try:
        data = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise InputError(
            f"the timing cache {path} cannot be read ({error.strerror})",
            expected="a file that an earlier build wrote, or none yet",
            fix="pass another --timing-cache",
        ) from None
    cache = config.create_timing_cache(data)
    if not config.set_timing_cache(cache, False):  # of another GPU or version: begun anew
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    yield
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as partial:
        partial.write_bytes(memoryview(config.get_timing_cache().serialize()))
    del cache  # it must live as long as the build


def _not_parsed(job: _Job, parser: Any) -> BundleError:
    """The parser's first error: where it stopped, and why."""
    if parser.num_errors == 0:
        where, why = job.onnx.name, job.errors.reason()
    else:
        error = parser.get_error(0)
        node = f"{error.node_operator()} {error.node_name()!a}" if error.node_operator() else job.onnx.name
        where, why = node, f"{log.one_line(error.desc(), 200)} [{_code(error)}]"
    return BundleError(
        f"{job.library} cannot read {job.onnx}: {where}: {why}",
        expected="operators and types that this version takes",
        fix=TARGETS + _see(job),
    )


def _code(error: Any) -> str:
    return str(error.code()).rsplit(".", 1)[-1]


def _not_built(job: _Job) -> BundleError:
    return BundleError(
        f"{job.library} cannot build {job.onnx.name} for SM {job.options.sm}: {job.errors.reason()}",
        expected="an engine",
        fix="give it more memory (a larger or no --workspace, fewer other programs), or export with smaller limits"
        + _see(job),
    )


def _misfit(job: _Job, got: str, expected: str) -> BundleError:
    return BundleError(
        f"{job.onnx}: {got}", expected=expected, fix="check the bundle with `hired-edge verify`, or export it again"
    )


def _see(job: _Job) -> str:
    return f"; more in {job.options.log_file}" if job.options.log_file else ""
