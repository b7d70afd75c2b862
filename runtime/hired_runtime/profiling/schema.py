"""`profile.json`, as frozen dataclasses: what a field is called, its unit and what it means.

`read` builds them from JSON and refuses whatever is missing, unknown or contradictory; `hired_edge.strict` writes them.
Bytes are bytes, times milliseconds, unless the name says otherwise. It knows nothing of how anything is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hired_edge import strict
from hired_edge.budget import parse_budget
from hired_edge.errors import BundleError, InputError
from hired_runtime.pipeline import STAGES
from hired_runtime.profiling.spread import Statistics

FORMAT_VERSION = 1
TIMINGS = (*STAGES, "ttft", "total")
_LARGEST = 256 * 2**20  # bytes of a profile.json: a million iterations


@dataclass(frozen=True)
class ProfiledBundle:
    """What was profiled, by its manifest."""

    name: str
    """Of the folder."""
    digest: str
    """Of the manifest."""
    checkpoint: str
    family: str
    target: str
    precision: str
    weights_bytes: int
    """Both graphs and their external data, as files."""


@dataclass(frozen=True)
class Picture:
    """One of the request's."""

    name: str
    width: int
    height: int


@dataclass(frozen=True)
class ProfiledRequest:
    """What every iteration does: `batch` times this request, prefilled and decoded together."""

    prompt: str
    images: tuple[Picture, ...]
    policy: str
    alpha: str
    newlines: str | None
    """None: the policy's or the family's own."""
    batch: int
    text_tokens: int
    """Of the prompt and its template, in one row; visual tokens not counted."""
    new_tokens: int
    """Made in one row. Decoding does not stop at a stop token: every iteration does the same work."""
    threads: int | None
    """Of the engine; None: its own choice."""
    warmup: int
    """Requests before the first that is timed, at each budget."""
    iterations: int


@dataclass(frozen=True)
class Board:
    """A Jetson. None: not found out."""

    model: str | None
    l4t: str | None
    power_mode: str | None


@dataclass(frozen=True)
class Machine:
    """Where it was measured."""

    processor: str
    architecture: str
    system: str
    cores: int
    """That the process may use."""
    memory_bytes: int
    load_average: float
    """Of the minute before: other work on the machine is measured along."""
    board: Board | None


@dataclass(frozen=True)
class Versions:
    """Of what took part."""

    hired_edge: str
    python: str
    numpy: str
    engine: str


@dataclass(frozen=True)
class Visual:
    """Visual tokens of one row, all its pictures together."""

    total: int
    """Of the stock sequence, newlines included."""
    eligible: int
    """Patches that could be kept."""
    budget: int
    """Positions granted."""
    kept: int
    """Patches kept; in the sequence, `newlines` come on top."""
    newlines: int


@dataclass(frozen=True)
class Load:
    """Opening the bundle, once."""

    verify_ms: float
    """Hashing its files."""
    total_ms: float
    """That, loading the engines and allocating the cache."""


@dataclass(frozen=True)
class Memory:
    """Peaks of samples: what comes and goes between two of them is not seen.

    The process's is its resident set, mapped files included. The system's is MemTotal - MemAvailable: everything on
    the machine, page cache left out. Base: just before the bundle is opened.
    """

    interval_ms: float
    samples: int
    process_base_bytes: int
    process_peak_bytes: int
    """Of opening and requests."""
    process_requests_peak_bytes: int
    """Of the requests alone: loading may need more for a moment."""
    process_high_water_bytes: int
    """The kernel's own record (VmHWM), to hold the samples against."""
    system_base_bytes: int
    system_peak_bytes: int
    gpu_base_bytes: int | None
    """Of all NVIDIA GPUs with memory of their own (NVML). None: there is none, as on a Jetson."""
    gpu_peak_bytes: int | None

    @property
    def system(self) -> tuple[int, int]:
        """(base, peak)."""
        return self.system_base_bytes, self.system_peak_bytes

    @property
    def gpu(self) -> tuple[int | None, int | None]:
        """(base, peak)."""
        return self.gpu_base_bytes, self.gpu_peak_bytes


@dataclass(frozen=True)
class Power:
    """Of a Jetson, by tegrastats, from the first timed iteration's start to the last one's end."""

    interval_ms: float
    samples: int
    rails: tuple[str, ...]
    """The rails that are counted as the board's power."""
    mean_w: float
    peak_w: float
    energy_per_answer_j: float
    """An answer is one row: the iterations' energy by iterations and batch."""
    peak_temperature_c: float | None
    """Of the hottest sensor."""


@dataclass(frozen=True)
class BudgetProfile:
    """One budget: the bundle opened with it, in a process of its own.

    Raises:
        InputError: a budget that is none, a stage that is missing, or statistics of another number of iterations.
    """

    budget: str
    visual: Visual
    max_sequence_length: int
    """M: positions of a row of the cache."""
    cache_bytes: int
    load: Load
    timings_ms: dict[str, Statistics]
    """By stage, and "ttft" and "total" from the start of the request. A stage is the sum over the rows."""
    time_per_output_token_ms: Statistics | None
    """A decode step's, that is, of all rows together. None: only one token is made, and there is no such step."""
    decode_tokens_per_s: Statistics | None
    """Tokens after the first, of all rows, by the time of the decode steps."""
    tokens_per_s: Statistics
    """All new tokens of all rows by the total time, pictures included: the throughput of the paper's Table 4."""
    memory: Memory
    power: Power | None

    def __post_init__(self) -> None:
        parse_budget(self.budget)
        if set(self.timings_ms) != set(TIMINGS):
            raise InputError(
                f"timings_ms has {', '.join(sorted(self.timings_ms))}", expected=", ".join(TIMINGS), fix="profile again"
            )
        if len({len(each.values) for each in self.all_statistics}) != 1:
            raise InputError(
                "statistics of several numbers of iterations", expected="of the same ones", fix="profile again"
            )

    @property
    def all_statistics(self) -> list[Statistics]:
        optional = (self.time_per_output_token_ms, self.decode_tokens_per_s)
        return [*self.timings_ms.values(), self.tokens_per_s, *(each for each in optional if each is not None)]


@dataclass(frozen=True)
class Profile:
    """The whole of `profile.json`.

    Raises:
        InputError: another format version, no budget, or budgets of other iterations than the request's.
    """

    format_version: int
    bundle: ProfiledBundle
    request: ProfiledRequest
    machine: Machine
    versions: Versions
    budgets: tuple[BudgetProfile, ...]

    def __post_init__(self) -> None:
        if self.format_version != FORMAT_VERSION:
            raise InputError(
                f"format_version is {self.format_version}", expected=f"{FORMAT_VERSION}", fix="profile again"
            )
        if not self.budgets:
            raise InputError("budgets is empty", expected="at least one", fix="profile again")
        for each in self.budgets:
            if len(each.tokens_per_s.values) != self.request.iterations:
                raise InputError(
                    f"{len(each.tokens_per_s.values)} values at {each.budget}",
                    expected=f"{self.request.iterations}, one an iteration",
                    fix="profile again",
                )


def read(path: Path) -> Profile:
    """Reads a `profile.json`.

    Raises:
        InputError: it cannot be read, or is no profile that this version could have written.
    """
    fix = "pass a profile.json as this version of hired-edge profile writes it"
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
        text = data.decode()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})", expected="a profile.json", fix=fix) from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not text", expected="JSON in UTF-8", fix=fix) from None
    if len(data) > _LARGEST:
        raise InputError(f"{path} is larger than {_LARGEST} bytes", expected="a profile.json", fix=fix)
    try:
        return strict.from_json(Profile, strict.loads(text, "profile"), "profile")
    except BundleError as error:  # the same rules as a manifest's, but another file to mend
        raise InputError(f"{path}: {error.got}", expected=error.expected, fix=fix) from None
