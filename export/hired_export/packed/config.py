"""What a checkpoint says of its own quantisation: config.json's `quantization_config`, or the file of an older tool.

Fields and their older names: transformers 5.23 utils/quantization_config.py (GPTQConfig, AwqConfig), AutoAWQ 0.2.9
awq/models/_config.py, AutoGPTQ 0.7.1 auto_gptq/quantization/config.py, GPTQModel 7.7.0 quantization/config.py,
compressed-tensors 0.20.0 quantization/quant_config.py. Whether a matrix is symmetric, kept in fp16 or in act-order is
read from its tensors, not from here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hired_edge.errors import CheckpointError
from hired_export.packed.formats import AWQ, COMPRESSED_TENSORS, GPTQ, Format

Json = Mapping[str, Any]
FILES = {"quantize_config.json": "gptq", "quant_config.json": "awq"}
"""Files beside config.json, and the method that is meant where they name none."""
SYNONYMS = {"w_bit": "bits", "q_group_size": "group_size", "checkpoint_format": "format", "version": "format"}
FIRST_GPTQ = "gptq"
"""Zero points are stored less 1; "gptq_v2" stores them as they are."""


@dataclass(frozen=True)
class PackedConfig:
    """How every packed matrix of a checkpoint is stored.

    Args:
        form: the format.
        group: inputs that share a scale.
        zeros: whether each matrix has zero points.
        one_less: whether they are stored less 1.
    """

    form: Format
    group: int
    zeros: bool = True
    one_less: bool = False


def read_config(root: Path, read: Callable[[str], Json]) -> PackedConfig | None:
    """None where nothing is said, or that weights are stored as they are.

    Args:
        root: the checkpoint's folder.
        read: gives the content of a JSON file of it.

    Raises:
        CheckpointError: a method, format, number of bits or group that is not supported.
    """
    said, where = _found(root, read)
    if not isinstance(said, Mapping) or not said:
        return None
    method = str(said.get("quant_method") or FILES.get(where) or _implied(said)).lower()
    if method not in READERS:
        raise _refused(where, f"quant_method {method[:40]!r}", ", ".join(READERS))
    return READERS[method](said, where)


def _found(root: Path, read: Callable[[str], Json]) -> tuple[Any, str]:
    config = read("config.json") if (root / "config.json").is_file() else {}
    text = config.get("text_config")
    places = (config, text) if isinstance(text, Mapping) else (config,)
    for place in places:
        for key in ("quantization_config", "compression_config"):
            if place.get(key):
                return place[key], "config.json"
    for name in FILES:
        if (root / name).is_file():
            return read(name), name
    return None, ""


def _implied(said: Json) -> str:
    return "compressed-tensors" if "config_groups" in said else "nothing"


def _grouped(said: Json, where: str, form: Format, formats: tuple[str, ...]) -> PackedConfig:
    """AWQ's and GPTQ's fields, which differ in names alone."""
    given = {SYNONYMS.get(key, key): value for key, value in said.items() if value is not None}
    stored = str(given.get("format", formats[0])).lower()
    if stored not in formats:
        raise _refused(where, f"format {stored[:40]!r} of {form.name}", " or ".join(formats))
    if str(said.get("backend")).lower() == "llm-awq":
        raise _refused(where, "backend 'llm-awq'", "AutoAWQ's gemm format")
    if given.get("dynamic"):
        raise _refused(where, "other bits or groups for some layers (dynamic)", "one format for all of them")
    if str(given.get("pack_dtype", "int32")) != "int32":
        raise _refused(where, f"pack_dtype {str(given['pack_dtype'])[:40]!r}", "int32")
    group = _checked(where, given.get("bits", 4), given.get("group_size", 128))
    return PackedConfig(form, group, one_less=stored == FIRST_GPTQ)


def _awq(said: Json, where: str) -> PackedConfig:
    return _grouped(said, where, AWQ, ("gemm",))


def _gptq(said: Json, where: str) -> PackedConfig:
    if str(said.get("version")).lower() == "gemm":  # AutoGPTQ's name for AWQ
        return _awq(said, where)
    return _grouped(said, where, GPTQ, (FIRST_GPTQ, "gptq_v2"))


def _compressed(said: Json, where: str) -> PackedConfig | None:
    stored = str(said.get("format"))
    if stored == "dense":
        return None
    groups = said.get("config_groups")
    schemes = list(groups.values()) if isinstance(groups, Mapping) else []
    found = [scheme.get("weights") for scheme in schemes if isinstance(scheme, Mapping)]
    weights = [fields for fields in found if isinstance(fields, Mapping)]
    if stored != "pack-quantized" or not weights or len(weights) < len(schemes):
        raise _refused(where, f"format {stored[:40]!r} of {len(weights)} config_groups", "'pack-quantized' weights")
    first = {key: weights[0].get(key) for key in ("num_bits", "type", "group_size", "strategy", "symmetric")}
    if any(fields.get(key) != value for fields in weights for key, value in first.items()):
        raise _refused(where, "other bits or groups for some layers", "one format for all of them")
    kind, strategy = first["type"] or "int", first["strategy"] or "group"
    if kind != "int" or strategy != "group":
        raise _refused(where, f"weights of type {str(kind)[:40]!r} by {str(strategy)[:40]!r}", "'int' by 'group'")
    group = _checked(where, first["num_bits"], first["group_size"])
    return PackedConfig(COMPRESSED_TENSORS, group, zeros=not first["symmetric"])


def _checked(where: str, bits: object, group: object) -> int:
    if type(bits) is not int or bits != 4:
        raise _refused(where, f"weights of {str(bits)[:40]} bits", "4")
    if type(group) is not int or group < 1:
        raise _refused(where, f"group_size {str(group)[:40]}", "a number of inputs that share a scale, such as 128")
    return group


READERS: Mapping[str, Callable[[Json, str], PackedConfig | None]] = {
    "awq": _awq,
    "gptq": _gptq,
    "compressed-tensors": _compressed,
}


def _refused(where: str, got: str, expected: str) -> CheckpointError:
    return CheckpointError(
        f"{where} says {got}", expected=expected, fix="use the checkpoint that this one was quantised from"
    )
