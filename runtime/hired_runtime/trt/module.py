"""The one place that knows `tensorrt` (JetPack, data centres) from `tensorrt_rtx` (wheels from PyPI).

They share NVIDIA's parser and nearly all of the API. What differs is kept here: how they are imported, which GPU they
build for, what their builders can be told, and whether a timing cache means anything. `tensorrt` builds for the GPU
that is present and no other; `tensorrt_rtx` builds for any compute capability that it knows, without a GPU too.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from hired_edge.engine_record import Module
from hired_edge.errors import InputError, MissingExtraError
from hired_runtime.trt.device import Device

JETPACK = "on a Jetson, make the venv with --system-site-packages: JetPack brings tensorrt"


@dataclass(frozen=True)
class Library:
    """One of the two, imported.

    Args:
        name: as it stands in an engine's record.
        trt: the module itself.
        timing_cache: whether measured kernels can be kept for the next build.
        any_gpu: whether it builds for another GPU than the one that is present.
        flags: what is switched on, or off ("-TF32"), in every build, as far as this version has it.
    """

    name: Module
    trt: Any
    timing_cache: bool
    any_gpu: bool
    flags: tuple[str, ...]

    @property
    def version(self) -> str:
        """Whole: engines fit no other one ("10.16.2.10", "1.7.1.116")."""
        return str(self.trt.__version__)

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class _Kind:
    name: Module
    imports: tuple[str, ...]
    """Modules to import in this order; the last one is the API."""
    timing_cache: bool
    any_gpu: bool
    flags: tuple[str, ...]


# In the order of preference: where JetPack's tensorrt is, it is the one that the board's kernels were tuned for.
_KINDS = (
    _Kind("tensorrt", ("tensorrt",), timing_cache=True, any_gpu=False, flags=("-TF32",)),
    _Kind(
        "tensorrt_rtx",
        ("tensorrt_rtx_libs", "tensorrt_rtx_bindings"),  # the first loads the libraries that the second needs
        timing_cache=False,  # "Timing cache operations are no-ops in TensorRT-RTX" (its DeprecationWarning since 1.2)
        any_gpu=True,
        # Without REQUIRE_USER_ALLOCATION an engine may allocate while it runs, and a CUDA graph could not hold a step.
        flags=("-TF32", "REQUIRE_USER_ALLOCATION"),
    ),
)


def load(name: str | None = None) -> Library:
    """Imports the library that is installed; `tensorrt` where both are.

    Args:
        name: only this one.

    Raises:
        MissingExtraError: none is installed, or its shared libraries cannot be loaded.
    """
    for kind in _KINDS:
        if name in (None, kind.name) and find_spec(kind.imports[-1]) is not None:
            return Library(kind.name, _import(kind), kind.timing_cache, kind.any_gpu, kind.flags)
    raise MissingExtraError(
        f"no module named {name or ' or '.join(kind.name for kind in _KINDS)}",
        expected="the 'tensorrt' extra, or 'tensorrt-rtx'",
        fix=f"run: pip install 'hired-edge[{(name or 'tensorrt').replace('_', '-')}]'; {JETPACK}",
    )


def _import(kind: _Kind) -> Any:
    try:
        return [importlib.import_module(name) for name in kind.imports][-1]
    except (ImportError, OSError) as error:  # OSError: a shared library that it opens by itself
        raise MissingExtraError(
            f"{kind.name} is installed but cannot be loaded ({' '.join(str(error).split())[:200]})",
            expected="a whole installation",
            fix=f"run: pip install --force-reinstall 'hired-edge[{kind.name.replace('_', '-')}]'; {JETPACK}",
        ) from None


def known_sms(library: Library) -> tuple[int, ...]:
    """The SMs that the library can be told to build for; empty where it asks the GPU that is present."""
    members = getattr(library.trt, "ComputeCapability", None)
    names = getattr(members, "__members__", {}) if library.any_gpu else {}
    return tuple(sorted(int(name[2:]) for name in names if re.fullmatch(r"SM[0-9]+", name)))


def choose_sm(library: Library, asked: int | None, device: Device | None) -> int:
    """The SM to build for: what was asked for, or the GPU's.

    Raises:
        InputError: the library cannot build for it here.
    """
    here = f"its GPU is an SM {device.sm} ({device.name})" if device else "it has no GPU"
    if asked is not None and device is not None and asked == device.sm:
        return asked
    if not library.any_gpu:
        if device is None:
            raise InputError(
                f"{library} on a machine without a GPU",
                expected="the GPU that the engines are for: tensorrt builds for the one that is present",
                fix="build on the board itself",
            )
        if asked is not None:
            raise InputError(
                f"--sm {asked} with {library}",
                expected=f"--sm {device.sm}: tensorrt builds for the GPU that is present, and {here}",
                fix=f"leave --sm out, or build on a machine with an SM {asked}",
            )
        return device.sm
    known = known_sms(library)
    if asked is None:
        if device is not None:
            return device.sm
        raise InputError(
            f"no --sm for {library} on this machine",
            expected=f"one of {', '.join(map(str, known))}, since {here}",
            fix="pass the SM of the GPU that will run the engines",
        )
    if asked not in known:
        raise InputError(
            f"--sm {asked} with {library}",
            expected=f"one of {', '.join(map(str, known))}" + (f", or {device.sm}, which is here" if device else ""),
            fix="choose one of them; for a Jetson, build on the board, with its own tensorrt",
        )
    return asked


def create_network(library: Library, builder: Any) -> Any:
    """An empty network whose types are those of the graph: no kernel may choose another precision."""
    flags = library.trt.NetworkDefinitionCreationFlag
    strongly_typed = getattr(flags, "STRONGLY_TYPED", None)  # where the flag is gone, every network is so
    return builder.create_network(0 if strongly_typed is None else 1 << int(strongly_typed))


def set_target(library: Library, config: Any, sm: int, device: Device | None) -> None:
    """Tells the builder which GPU to build for, where that is not the one that is present."""
    if not library.any_gpu:
        return
    capability = getattr(library.trt.ComputeCapability, f"SM{sm}", None)
    if capability is None:
        assert device is not None, f"choose_sm let an unknown SM {sm} through"
        capability = library.trt.ComputeCapability.CURRENT
    config.num_compute_capabilities = 1
    taken = config.set_compute_capability(capability, 0)
    assert taken, sm


def set_flags(library: Library, config: Any) -> tuple[str, ...]:
    """Sets the library's flags as far as this version has them; returns those for the record."""
    done: list[str] = []
    for name in library.flags:
        flag = getattr(library.trt.BuilderFlag, name.lstrip("-"), None)
        if flag is not None:
            change: Callable[[Any], None] = config.clear_flag if name.startswith("-") else config.set_flag
            change(flag)
            done.append(name)
    return tuple(done)


def allow_decomposed_attention(library: Library, network: Any) -> int:
    """Lets the builder use plain kernels where none is fused for an Attention's shape; returns how many there are.

    The parser leaves that off (10.16 onnxOpImporters.cpp: TRT_decomposable defaults to 0), and a build without a fused
    kernel would fail. Layers come out of a network as plain ILayer: setting the class is TensorRT's own way to reach
    what a layer has (samples/python).
    """
    kind = getattr(library.trt.LayerType, "ATTENTION_INPUT", None)
    found = 0
    for layer in (network.get_layer(i) for i in range(network.num_layers)) if kind is not None else ():
        if layer.type == kind:
            layer.__class__ = library.trt.IAttentionInputLayer
            layer.attention.decomposable = True
            found += 1
    return found
