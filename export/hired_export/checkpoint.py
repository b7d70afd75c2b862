"""A checkpoint on disk: its config.json and its tensors under canonical names, read one at a time.

Canonical names: `text.*` (below the decoder's `model.`), `lm_head.weight`, `vision.*` (below `vision_model.`),
`projector.*`, `image_newline`. `LAYOUTS` says how checkpoints spell them: the Hub's, as transformers 4 and as 5 write
them, and the original ones.
Tensors come from safetensors shards by plain reads, so that nothing stays mapped, or from `.bin` shards through
`torch.load(weights_only=True, mmap=True)` and never any other way, mapped while one tensor is read and no longer. Those
of a folder that `synthetic.py` made are drawn instead. Matrices that are stored in 4 bits are `packed`'s business.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from hired_edge.errors import CheckpointError
from hired_edge.tensorfile import TensorFile
from hired_export import synthetic
from hired_export.fused import split
from hired_export.packed.config import read_config
from hired_export.packed.gather import gathered, is_part
from hired_export.tensor import Tensor

Layout: TypeAlias = tuple[tuple[str, str], ...]
LAYOUTS: Layout = (
    # The original layout first: its tower is one level deeper.
    (r"^model\.vision_tower\.vision_tower\.(?:vision_model\.)?", "vision."),
    (r"^model\.mm_projector\.0\.", "projector.linear_1."),
    (r"^model\.mm_projector\.2\.", "projector.linear_2."),
    (r"^model\.(?=(?:layers|embed_tokens|norm)\.)", "text."),
    (r"^(?:model\.)?vision_tower\.(?:vision_model\.)?", "vision."),
    (r"^(?:model\.)?multi_modal_projector\.", "projector."),
    (r"^(?:model\.)?image_newline$", "image_newline"),
    (r"^(?:language_model\.)?lm_head\.", "lm_head."),
    (r"^(?:language_model\.model|model\.language_model)\.", "text."),
)
TOWER_LAYOUT: Layout = ((r"^(?:vision_model\.)?(?=(?:embeddings|encoder|pre_layrnorm|post_layernorm)\.)", "vision."),)
"""Of a CLIPModel or CLIPVisionModel on its own."""
FLOATS = ("F64", "F32", "F16", "BF16")
TORCH_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
INTEGERS, TORCH_INTEGERS = ("I32", "I64"), (torch.int32, torch.int64)
"""Of the parts of quantised matrices; other integers are buffers, such as position ids."""


def canonical(name: str, layout: Layout = LAYOUTS) -> str | None:
    """The canonical name of a stored tensor; None if the layout does not know it."""
    for pattern, replacement in layout:
        renamed, count = re.subn(pattern, replacement, name)
        if count:
            return renamed
    return None


@dataclass(frozen=True)
class Checkpoint:
    """A folder with config.json and weights.

    Args:
        root: the folder.
        vision_tower: a folder with the tower's config.json and weights, where the checkpoint does not hold the tower;
            `vision_tower.open_checkpoint` sees to it that this is so.
        layout: how tensors are named.
    """

    root: Path
    vision_tower: Path | None = None
    layout: Layout = LAYOUTS

    def __post_init__(self) -> None:
        if not os.path.isdir(self.root):  # which, unlike Path's, answers no for a name that is too long
            raise CheckpointError(
                f"{str(self.root)[:200]} is not a folder",
                expected="a checkpoint folder with config.json and its weights",
                fix="pass the folder that a checkpoint was downloaded to",
            )

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json as it stands."""
        return self.json("config.json")

    @cached_property
    def tower(self) -> Checkpoint | None:
        """The tower's own checkpoint, where it is another."""
        return Checkpoint(self.vision_tower, layout=TOWER_LAYOUT) if self.vision_tower is not None else None

    def json(self, name: str) -> dict[str, Any]:
        path = self.root / name
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CheckpointError(
                f"{self.root} holds no {name}",
                expected=f"a checkpoint folder with {name}",
                fix="download the checkpoint's other files as well",
            ) from None
        except (OSError, ValueError, RecursionError) as error:  # RecursionError: ten thousand brackets
            reason = getattr(error, "strerror", None) or error
            raise CheckpointError(
                f"{path} cannot be read ({reason})", expected="a JSON file", fix="download the file again"
            ) from None
        if not isinstance(content, dict):
            raise CheckpointError(f"{path} holds no JSON object", expected="one", fix="download the file again")
        return content

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Every tensor under its canonical name; names that no layout knows are left out."""
        if (self.root / synthetic.MARKER).is_file():
            drawn = synthetic.stored_tensors(self.config, self.json(synthetic.MARKER))
            return {name: Tensor(shape, read, bfloat16=False) for name, (shape, read) in drawn.items()}
        quantised = read_config(self.root, self.json)
        found: dict[str, Tensor] = {}
        for shard in self._shards():
            stored = _safetensors(shard) if shard.suffix == ".safetensors" else PickledShard(shard).tensors()
            for name, tensor in stored:
                known = canonical(name, self.layout)
                if known is not None:
                    found[known] = tensor
        return split(gathered(found, quantised), self.config) | (self.tower.tensors if self.tower is not None else {})

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A tensor that must be there, with the shape that the config implies."""
        tensor = self.tensors.get(name)
        if tensor is None:
            raise CheckpointError(
                f"the checkpoint has no tensor {name} (canonical name)",
                expected=f"one of shape {shape}",
                fix="download all of its shards, or check that config.json belongs to these weights",
            )
        if tensor.shape != shape:
            raise CheckpointError(
                f"tensor {name} has shape {tensor.shape}",
                expected=f"{shape}, from config.json",
                fix="use a config.json and weights that belong together",
            )
        return tensor

    def _shards(self) -> list[Path]:
        """Weight files: an index names them, else the single file; safetensors before .bin."""
        for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
            if (self.root / f"{stem}.{suffix}.index.json").is_file():
                return self._indexed(f"{stem}.{suffix}.index.json")
            if (self.root / f"{stem}.{suffix}").is_file():
                return [self.root / f"{stem}.{suffix}"]
        raise CheckpointError(
            f"{self.root} holds no weights",
            expected="model.safetensors, pytorch_model.bin, or shards with an index",
            fix="download the checkpoint's weights",
        )

    def _indexed(self, name: str) -> list[Path]:
        weight_map = self.json(name).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(v, str) for v in weight_map.values()):
            raise CheckpointError(
                f"{name} has no weight_map", expected="tensor names and their files", fix="download the index again"
            )
        shards = []
        for shard in sorted(set(weight_map.values())):
            path = self.root / shard
            # The index is data from elsewhere: it may name files here and nowhere else.
            if Path(shard).name != shard or not os.path.isfile(path):  # no error for a name that is none
                raise CheckpointError(
                    f"{name} names {shard!r}, which is no file of {self.root}",
                    expected="every shard beside its index",
                    fix="download the missing shards",
                )
            shards.append(path)
        return shards


def _safetensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    file = TensorFile(path)
    for name in file.names:
        info = file.info(name)
        if info.dtype in FLOATS or (info.dtype in INTEGERS and is_part(name)):
            yield name, Tensor(info.shape, partial(file.read, name), bfloat16=info.dtype == "BF16")


def _is_read(name: str, dtype: torch.dtype) -> bool:
    return dtype in TORCH_FLOATS or (dtype in TORCH_INTEGERS and is_part(name))


class PickledShard:
    """A `.bin` shard. It is opened anew for every tensor: what was read of a mapping stays in memory until it closes.

    Raises:
        CheckpointError: at construction and at every read: the file is no plain state dict, or another than before.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: tuple[str, torch.Tensor] | None = None  # the tensor being read; it keeps the file mapped
        self._reading = threading.Lock()
        self._stored = {
            name: (tuple(value.shape), value.dtype)
            for name, value in self._load().items()
            if isinstance(name, str) and isinstance(value, torch.Tensor) and _is_read(name, value.dtype)
        }

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, (shape, dtype) in self._stored.items():
            yield name, Tensor(shape, partial(self._read, name), bfloat16=dtype == torch.bfloat16)

    def _read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """A view of the mapping, which ends with the view where these are the tensor's last rows."""
        with self._reading:
            value = self._find(name)
            self._open = (name, value) if stop < len(value) else None
        rows = value[start:stop].detach()  # a Parameter where the state dict was made by hand
        return rows.view(torch.int16).numpy().view(np.uint16) if rows.dtype == torch.bfloat16 else rows.numpy()

    def _find(self, name: str) -> torch.Tensor:
        if self._open is not None and self._open[0] == name:
            return self._open[1]
        self._open = None  # before the file is mapped again
        value = self._load().get(name)
        if not isinstance(value, torch.Tensor) or (tuple(value.shape), value.dtype) != self._stored[name]:
            raise CheckpointError(
                f"{self._path.name} changed while it was read",
                expected=f"{name} as it was",
                fix="export again, and leave the checkpoint alone meanwhile",
            )
        return value

    def _load(self) -> dict[Any, Any]:
        try:
            state = torch.load(self._path, map_location="cpu", weights_only=True, mmap=True)
        except (UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
            raise CheckpointError(
                f"{self._path.name} cannot be read as plain tensors ({str(error).splitlines()[0][:120]})",
                expected="a state dict that torch.load(weights_only=True) accepts",
                fix="download it again, or convert it to safetensors where it is trusted",
            ) from None
        if not isinstance(state, dict):
            raise CheckpointError(
                f"{self._path.name} holds a {type(state).__name__}",
                expected="a state dict",
                fix="use a checkpoint's weights",
            )
        return state
