"""The TensorRT backend: engines that `hired-edge build` made on this machine, checked, loaded and put together.

numpy, cuda-bindings and the TensorRT module, nothing else. Every buffer is allocated here, for the largest request of
the opening; no step allocates.
"""

from __future__ import annotations

import contextlib
import weakref
from pathlib import Path

import numpy as np

from hired_edge.bundle import Bundle
from hired_edge.engine_check import Machine, check_record, checked_engine, machine_folder, read_record
from hired_edge.errors import InputError
from hired_edge.limits import Limits
from hired_edge.manifest import Manifest
from hired_runtime.backend import Backend
from hired_runtime.room import room_told
from hired_runtime.trt import log, module
from hired_runtime.trt.addresses import VisionAddresses
from hired_runtime.trt.cuda import Cuda
from hired_runtime.trt.device import Device, find_device
from hired_runtime.trt.engine import Loader
from hired_runtime.trt.language import TrtLanguage
from hired_runtime.trt.module import Library
from hired_runtime.trt.opening import Opening, choose
from hired_runtime.trt.vision import TrtVision


def load(bundle: Bundle, limits: Limits, folder: Path | None = None) -> Backend:
    """Loads this machine's engines of a verified bundle.

    Args:
        bundle: on this machine's disk.
        limits: of the opening.
        folder: in which the engines lie while they are being built; None = at their place.

    Raises:
        BundleError: there are none, they are not to be deserialised here, or they were built for less; with the command
            that rebuilds. Or CUDA fails.
        InputError: there is no GPU.
        MissingExtraError: TensorRT or cuda-bindings is not installed.
    """
    library, device = module.load(), find_device()
    if device is None:
        raise InputError(
            f"{library} on a machine without an NVIDIA GPU",
            expected="the GPU that the engines were built for",
            fix="pass --backend onnxruntime",
        )
    machine = Machine(library.name, library.version, device.sm)
    folder = machine_folder(bundle.root, machine) if folder is None else folder
    record = read_record(folder, bundle.root, bundle.check)
    check_record(record, bundle.manifest.files, machine, bundle.root)
    opening = choose(record, bundle.manifest, limits, bundle.root)
    with (  # both, before either is deserialised
        checked_engine(folder, opening.vision, bundle.root) as vision,
        checked_engine(folder, opening.language, bundle.root) as language,
    ):
        return _put_together(bundle, limits, library, device, opening, folder, vision, language)


def _put_together(
    bundle: Bundle,
    limits: Limits,
    library: Library,
    device: Device,
    opening: Opening,
    folder: Path,
    vision_content: memoryview,
    language_content: memoryview,
) -> Backend:
    manifest, cuda = bundle.manifest, Cuda()
    with contextlib.ExitStack() as failed, room_told(manifest, limits, cuda.memory()[0]):
        failed.callback(cuda.close)
        errors = log.LastErrors()
        loader = Loader(library, cuda, log.logger(library.trt, errors, None), errors, bundle.root)
        vision = loader.load(folder / opening.vision.file, vision_content, vision_tensors(manifest))
        language = loader.load(folder / opening.language.file, language_content, language_tensors(manifest, opening))
        names = opening.addresses.rules.names
        if manifest.text.cache == "in_place":
            language.check_aliases(dict(zip(names.present, names.past, strict=True)))
        scratch = cuda.allocate(max(vision.scratch_bytes, language.scratch_bytes), "scratch memory of the engines")
        addresses = vision_addresses(manifest, limits)
        built_vision = TrtVision(cuda, vision.context(0, scratch), addresses, limits.images)
        built_language = TrtLanguage(
            cuda,
            decode=language.context(opening.decode, scratch, one_shape=True),
            prefill=language.context(opening.prefill, scratch),
            addresses=opening.addresses,
            batch=limits.batch,
            prompt=opening.prompt,
        )
        failed.pop_all()
        weakref.finalize(built_language, cuda.close)  # a model that is dropped gives its memory back too
    name = f"{library}, SM {device.sm} ({device.name}), {built_language.graph.partition(':')[0]}"
    return Backend(built_vision, built_language, name, opening.slots, cuda.close)


def vision_addresses(manifest: Manifest, limits: Limits) -> VisionAddresses:
    return VisionAddresses(
        image_size=manifest.vision.tiling.image_size,
        patches=manifest.vision.tiling.patches_per_tile,
        width=manifest.text.hidden_size,
        images=limits.images,
        tiles=limits.tiles,
        dtype=np.dtype(manifest.text.activation_dtype),
    )


def vision_tensors(manifest: Manifest) -> dict[str, np.dtype]:
    """Every input and output of the vision engine, and its type."""
    activations, single = np.dtype(manifest.text.activation_dtype), np.dtype(np.float32)
    return {
        "pixel_values": activations,
        "image_features": activations,
        "allocation_attention": single,
        "selection_attention": single,
    }


def language_tensors(manifest: Manifest, opening: Opening) -> dict[str, np.dtype]:
    """Every input and output of the language engine, and its type."""
    addresses = opening.addresses
    fields = {**addresses.inputs(1, 1).fields, **addresses.cache(1), "logits": addresses.logits(1)}
    cache = np.dtype(manifest.text.cache_dtype)
    return {name: field.dtype for name, field in fields.items()} | dict.fromkeys(addresses.rules.names.present, cache)
