"""Too little memory: told in words, with what was needed, what there is and which budget would fit."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from hired_edge.budget import Budget, parse_budget
from hired_edge.bundle import read_manifest
from hired_edge.errors import OutOfMemoryError
from hired_edge.limits import Limits, resolve_opening
from hired_edge.manifest import Manifest
from hired_edge.plan import memory_plan
from hired_runtime.board.machine import Machine
from hired_runtime.room import available_bytes, check_room, largest_fitting, room_told

BUNDLE = Path(__file__).parents[2] / "demo/bundle"
MIB = 2**20
MEMINFO = "MemTotal: 16000000 kB\nMemAvailable: 8000 kB\nSwapFree: 2000 kB\n"
SERVICE = "sys/fs/cgroup/system.slice/hired-edge.service"


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return read_manifest(BUNDLE)


def opening(manifest: Manifest, batch: int | None = None, visual: Budget | None = None) -> Limits:
    return resolve_opening(manifest.limits, manifest.vision.tiling, batch=batch, visual=visual)


def needed(manifest: Manifest, limits: Limits) -> int:
    plan = memory_plan(manifest, limits)
    return plan.weights + plan.kv_cache + plan.buffers


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_what_fits_to_the_byte_is_not_refused(manifest: Manifest, batch: int) -> None:
    limits = opening(manifest, batch=batch)
    exact = needed(manifest, limits)
    check_room(manifest, limits, exact)
    check_room(manifest, limits, None)
    with pytest.raises(OutOfMemoryError):
        check_room(manifest, limits, exact - 1)


def test_the_budget_that_it_names_is_the_largest_that_fits(manifest: Manifest) -> None:
    limits = opening(manifest, batch=8)
    least, most = (needed(manifest, opening(manifest, batch=8, visual=parse_budget(p))) for p in ("1%", "100%"))
    for available in range(least, most, (most - least) // 7):
        with pytest.raises(OutOfMemoryError) as refusal:
            check_room(manifest, limits, available)
        found = re.search(r"--visual-tokens (\d+)% \((\d+) tokens\)", str(refusal.value))
        assert found is not None, refusal.value
        percent = int(found[1])
        fits = opening(manifest, batch=8, visual=parse_budget(f"{percent}%"))
        assert (needed(manifest, fits) <= available, fits.visual_tokens) == (True, int(found[2]))
        larger = opening(manifest, batch=8, visual=parse_budget(f"{percent + 1}%"))
        assert needed(manifest, larger) > available or larger.visual_tokens == limits.visual_tokens
    assert largest_fitting(manifest, limits, least - 1) is None


def test_memory_that_runs_out_while_loading_is_told_alike(manifest: Manifest) -> None:
    limits = opening(manifest)
    words = r"336 visual tokens in 8 rows take \d+ MiB \(weights"
    with pytest.raises(OutOfMemoryError, match=words), room_told(manifest, limits, 20 * MIB):
        raise MemoryError
    with pytest.raises(OutOfMemoryError, match="^CUDA has none: " + words), room_told(manifest, limits, None):
        raise OutOfMemoryError("CUDA has none", expected="memory", fix="none")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"proc/meminfo": MEMINFO}, 10_000 * 1024),
        (
            {"proc/meminfo": MEMINFO, "sys/fs/cgroup/memory.max": "max\n", "sys/fs/cgroup/memory.current": "7\n"},
            10_240_000,
        ),
        (
            {
                "proc/meminfo": MEMINFO,
                "sys/fs/cgroup/memory.max": "5000000\n",
                "sys/fs/cgroup/memory.current": "4000000\n",
                "sys/fs/cgroup/memory.stat": "anon 100\ninactive_file 300000\n",
            },
            1_300_000,
        ),
        (  # a service's limit, in one that has none; what the kernel drops; and 1,000,000 bytes of swap
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "4:cpu:/x\n0::/system.slice/hired-edge.service\n",
                "sys/fs/cgroup/system.slice/memory.max": "max\n",
                "sys/fs/cgroup/system.slice/memory.current": "9000000\n",
                f"{SERVICE}/memory.max": "5000000\n",
                f"{SERVICE}/memory.current": "4000000\n",
                f"{SERVICE}/memory.stat": "anon 100\ninactive_file 300000\nactive_file 2000000\nslab_reclaimable 7\n",
                f"{SERVICE}/memory.swap.max": "1500000\n",
                f"{SERVICE}/memory.swap.current": "500000\n",
            },
            4_300_007,
        ),
        (  # swap without a limit, of which the system has 2,048,000 bytes
            {
                "proc/meminfo": MEMINFO,
                "sys/fs/cgroup/memory.max": "5000000\n",
                "sys/fs/cgroup/memory.current": "4000000\n",
                "sys/fs/cgroup/memory.swap.max": "max\n",
            },
            3_048_000,
        ),
        (
            {
                "proc/self/cgroup": "7:hugetlb,memory:/docker/1\n0::/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "6000000\n",
                "sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes": "5000000\n",
                "sys/fs/cgroup/memory/docker/1/memory.usage_in_bytes": "4000000\n",
                "sys/fs/cgroup/memory/docker/1/memory.stat": "total_inactive_file 20\ntotal_active_file 3\n",
            },
            1_000_023,
        ),
        (
            {
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "5000000\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "6000000\n",
                "sys/fs/cgroup/memory/memory.stat": "cache 0\ntotal_inactive_file 0\n",
            },
            0,
        ),
    ],
)
def test_what_is_available(files: dict[str, str], expected: int | None, tmp_path: Path) -> None:
    """As recorded files of a machine, and of a container with a limit, have it."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert available_bytes(Machine(tmp_path)) == expected


PROGRAM = """
import resource, sys
import onnxruntime, hired_runtime, hired_runtime.ort
from hired_edge.errors import OutOfMemoryError
if {late}:
    hired_runtime.ort.check_room = lambda *arguments: None
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + {more} * 2**20,) * 2)
try:
    hired_runtime.open({bundle!r}, batch=8, threads=1)
except OutOfMemoryError as error:
    print(error)
"""


@pytest.mark.parametrize("late", [False, True])
def test_a_process_of_limited_memory_says_so(late: bool) -> None:
    """A real limit (`ulimit -v`): found before anything is loaded, or by whoever asks for too much."""
    program = PROGRAM.format(bundle=str(BUNDLE), more=24, late=late)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert re.match(r"336 visual tokens in 8 rows take \d+ MiB .* expected at most the \d+ MiB", done.stdout), done
    assert "open with --visual-tokens" in done.stdout
