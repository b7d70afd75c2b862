"""The bundles that are compared, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCKS = (32, 64, 128)


@dataclass(frozen=True, eq=False)
class Variant:
    """A bundle.

    Args:
        name: as the page has it.
        options: of the export, beside the demonstration bundle's limits.
        calibrated: whether it is calibrated.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    calibrated: bool = False

    @property
    def folder(self) -> str:
        return self.name.replace(" ", "-").replace(",", "")

    def export_options(self, calibration: Path) -> dict[str, Any]:
        return {**self.options, **({"calibration": calibration} if self.calibrated else {})}


REFERENCE = Variant("fp32")
TOWER = Variant("fp32, int8 tower", {"vision_precision": "int8"})
VARIANTS = (
    REFERENCE,
    TOWER,
    Variant("fp32, int8 embeddings", {"embedding": "int8"}),
    Variant("int8", {"precision": "int8"}),
    *(
        Variant(
            f"int4 {method} {block}",
            {"precision": "int4", "block_size": block, "quantisation": method},
            calibrated=method == "awq",
        )
        for block in BLOCKS
        for method in ("rtn", "hqq", "awq")
    ),
)
