"""What a run found, as frozen dataclasses, and the arithmetic on it: medians, ratios, and full depth from a few layers.

Nothing here measures. Times are seconds unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

OURS, LLAMA, TORCH = "hired-edge", "llama.cpp", "PyTorch"
OURS_BESIDE_TORCH = "hired-edge beside PyTorch"
"""Our engine in the rounds in which PyTorch's was measured."""


@dataclass(frozen=True)
class Series:
    """One thing measured again and again.

    Args:
        side: who was measured.
        what: "prefill 640", "decode 2928", "see 20%", ...
        layers: of the text model.
        seconds: one a round.
    """

    side: str
    what: str
    layers: int
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.seconds)


@dataclass(frozen=True)
class Where:
    """The machine and what is installed on it."""

    processor: str
    cores: int
    memory_bytes: int
    threads: int
    python: str
    versions: tuple[str, ...]

    def line(self, command: str) -> str:
        """As a page says it, with the command that was run."""
        size = f"{self.cores} cores, {self.memory_bytes / 2**30:.0f} GiB; {self.threads} threads"
        return f"{self.processor}, {size}; Python {self.python}; {'; '.join(self.versions)}. By `{command}`."


@dataclass(frozen=True)
class Ceilings:
    """What this machine does at best, by PyTorch: a float32 product, a copy (read and written) and a sum (read)."""

    flops_per_s: float
    bytes_per_s: float
    read_bytes_per_s: float
    product: tuple[int, int, int]
    copy_bytes: int


@dataclass(frozen=True)
class Share:
    """One kind of operator in a run of the language graph."""

    operator: str
    seconds: float


@dataclass(frozen=True)
class Peak:
    """Resident memory of a process, at its highest: while it answered one request, and while it loaded."""

    side: str
    budget: str
    batch: int
    layers: int
    bytes: int
    loading: int


@dataclass(frozen=True)
class Run:
    """Everything. Parts that there was no time for, or no peer, are named in `left_out`."""

    written: str
    command: str
    minutes: float
    shape: str
    depth: int
    """Layers of the whole text model."""
    layers: tuple[int, int]
    """That were measured."""
    block_size: int
    vision: str
    """Precision of our tower."""
    where: Where
    ceilings: Ceilings
    series: tuple[Series, ...]
    policies: dict[str, tuple[float, ...]]
    """Seconds of each policy's selection."""
    shares: dict[str, tuple[Share, ...]]
    """Of a prefill and of a decode step at the larger number of layers."""
    peaks: tuple[Peak, ...]
    left_out: tuple[str, ...]

    def median(self, side: str, what: str, layers: int | None = None) -> float | None:
        """None where it was not measured."""
        layers = self.layers[1] if layers is None else layers
        found = [each for each in self.series if (each.side, each.what, each.layers) == (side, what, layers)]
        return found[0].median if found else None

    def full(self, side: str, what: str) -> float | None:
        """At full depth, on the line through both numbers of layers."""
        few, many = (self.median(side, what, layers) for layers in self.layers)
        return None if few is None or many is None else on_line(self.layers, (few, many), self.depth)


def on_line(at: tuple[int, int], values: tuple[float, float], depth: int) -> float:
    """The value at `depth` of the line through two points."""
    slope = (values[1] - values[0]) / (at[1] - at[0])
    return values[0] + slope * (depth - at[0])


def ratio(of: float | None, to: float | None) -> float | None:
    """`of / to`; None where one of them is missing."""
    return None if of is None or to is None else of / to
