"""What a comparison found, as frozen dataclasses: docs/gpu-figures.json. docs/gpu.md is made of these alone.

`read` refuses whatever is missing, unknown or of a wrong type. It knows nothing of how anything is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hired_edge import strict
from hired_edge.errors import BundleError, InputError
from hired_edge.manifest import Precision
from hired_runtime.profiling.spread import Statistics

Side = Literal["stock", "research", "ours"]
Device = Literal["cuda", "cpu"]


@dataclass(frozen=True)
class Setup:
    """What every cell has in common: the model, the request, and how often it is asked."""

    shape: str
    """Of the model: a name in `shapes.SHAPES`."""
    seed: int
    """Of its weights."""
    device: Device
    prompt: str
    picture: tuple[int, int]
    """Width and height, px."""
    new_tokens: int
    """Of every answer, whatever the model says."""
    warmup: int
    iterations: int


@dataclass(frozen=True)
class Where:
    """The machine and what is installed on it."""

    accelerator: str | None
    """The GPU, as PyTorch names it; None where none was used."""
    driver: str | None
    """NVIDIA's; None without one."""
    cuda: str | None
    """That PyTorch was built with."""
    processor: str
    python: str
    torch: str
    transformers: str
    hired_edge: str


@dataclass(frozen=True)
class Cell:
    """One measurement: a process of its own."""

    side: Side
    precision: Precision
    """Of the language model's weights."""
    budget: str
    batch: int

    @property
    def name(self) -> str:
        """Also that of its file."""
        return f"{self.side}-{self.precision}-{self.budget.rstrip('%')}-b{self.batch}"


@dataclass(frozen=True)
class Figures:
    """What a cell's process measured."""

    engine: str
    text_tokens: int
    """Of a row, as `visual_tokens`."""
    visual_tokens: int
    preparation_ms: Statistics
    """Of `ttft_ms`: the prompt's tokens and the picture's pixels, by the same code on every side."""
    ttft_ms: Statistics
    tokens_per_s: Statistics
    """Of all rows together, after their first tokens."""
    peak_bytes: int
    """On the GPU, by its driver, above what was in use before; without a GPU of the process, likewise."""


@dataclass(frozen=True)
class Least:
    """What the measured ceilings allow at best."""

    ttft_ms: float
    tokens_per_s: float


@dataclass(frozen=True)
class Row:
    """A cell and what came of it: figures, or the trouble that kept them away."""

    cell: Cell
    figures: Figures | None
    least: Least | None
    trouble: str | None

    def __post_init__(self) -> None:
        if (self.figures is None) == (self.trouble is None) or (self.figures is None) != (self.least is None):
            raise InputError(f"{self.cell.name} with figures and trouble, or neither", expected="one", fix="run again")


@dataclass(frozen=True)
class Ceilings:
    """The two that a roofline has, measured with PyTorch."""

    flops_per_s: float
    bytes_per_s: float
    """Read and written ones together."""
    matmul: int
    """The product measured is of two square matrices of this size."""
    copy_bytes: int
    dtype: str


@dataclass(frozen=True)
class Agreement:
    """Our runtime's answer beside PyTorch's, one row: of `stock` at 100 %, of `research` below."""

    precision: Precision
    budget: str
    against: Side
    visual_tokens: int
    """Theirs."""
    same_visual_tokens: int
    """Kept by both."""
    maps_error: float | None
    """Largest difference of the attention maps, of the largest attention; None where nothing is selected."""
    tokens: int
    same_tokens: int
    """From the first on."""
    gap: float | None
    """Where they part: by how much PyTorch prefers its own token, of its largest logit."""


@dataclass(frozen=True)
class Results:
    """A whole comparison."""

    written: str
    """Date, UTC."""
    setup: Setup
    where: Where
    notes: tuple[str, ...]
    """What the page has to say besides: which engine was not used, and why."""
    ceilings: Ceilings
    rows: tuple[Row, ...]
    agreements: tuple[Agreement, ...]
    disagreement: str | None
    """Why the answers could not be compared."""


def read(path: Path) -> Results:
    """Reads what `strict.dumps` wrote.

    Raises:
        InputError: it cannot be read, or is something else.
    """
    try:
        return strict.from_json(Results, strict.loads(path.read_text(encoding="utf-8"), "the results"), "the results")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read ({strict.one_line(error)})", expected="JSON", fix="run again"
        ) from None
    except BundleError as error:  # the reader's own word for whatever is not as it should be
        raise InputError(f"{path}: {error.got}", expected=error.expected, fix="run again") from None
