"""Boards as data: memory, bandwidth, arithmetic, and what is assumed to be taken before the model comes.

Tensor throughput is dense and in float16, which is what weight-only INT4 and INT8 compute in as well; sparse figures,
twice as high, need pruned weights. What a figure is derived from is said beside it. A board of one's own is a JSON file
with the fields of `Device`.

Sources.
[module] NVIDIA's data sheets of the Jetson Orin NX (DS-10712), Orin Nano and AGX Orin modules: bandwidth,
    tensor cores, GPU clock at the named mode. The Orin NX's 8 SMs and 918 MHz also stand in a public deviceQuery
    (gist.github.com/atinfinity/8cede915acda05d0ff427c09604735dd).
[brief] NVIDIA, Jetson AGX Orin Series technical brief: 64 tensor cores at 1.3 GHz give 170 sparse INT8 TOPS, so 85
    dense, and half of that in float16: 512 INT8 or 256 float16 products a tensor core and cycle.
[ram] MemTotal in public tegrastats lines of JetPack 6: 15656, 7620 and 62841 MB. Of an Orin NX 8 GB no line was found:
    it has the Orin Nano's memory, and its figure.
[idle] "RAM 645/7620MB", "RAM 796/15656MB", "RAM 1224/15656MB": such lines of idle boards, without a desktop.
[cma] 256 MiB, JetPack 6's default.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hired_edge import strict
from hired_edge.errors import BundleError, InputError
from hired_edge.strict import one_line

MIB = 2**20
MOST_BYTES = 2**20
"""Of a device file."""
RATES = (1e-3, 1e6)
"""Of bandwidth and arithmetic: from a microcontroller's to a rack's."""


@dataclass(frozen=True)
class Device:
    """A machine to plan for. Rates are per second, of 10^9 and 10^12."""

    name: str
    power_mode: str
    """The clocks that the rates belong to."""
    memory_bytes: int
    """What the system has to give, after the firmware's share."""
    system_bytes: int
    """Assumption: what the system and its services keep of it."""
    process_bytes: int
    """Assumption: what the runtime's process takes without a model: Python, the engine's library, a GPU's context."""
    bandwidth_gb_s: float
    """Of the memory, peak."""
    fp16_tflops: float
    """Dense, peak."""
    int8_tops: float
    """Dense, peak; of no use to weight-only quantisation, and here to compare boards by."""
    sm: int | None
    """CUDA compute capability times ten; None without a GPU."""
    cma_bytes: int | None
    """Contiguous memory reserved by default; None where a build does not need it."""
    source: str

    def __post_init__(self) -> None:
        for name in ("bandwidth_gb_s", "fp16_tflops", "int8_tops"):
            rate = getattr(self, name)
            if not RATES[0] <= rate <= RATES[1]:
                raise InputError(
                    f"{name} is {rate}", expected=f"{RATES[0]} to {RATES[1]:.0f}", fix="mend the device file"
                )
        if min(self.system_bytes, self.process_bytes) < 0 or self.system_bytes >= self.memory_bytes:
            raise InputError(
                f"system_bytes is {self.system_bytes} and process_bytes {self.process_bytes}",
                expected=f"0 or more, the first below memory_bytes ({self.memory_bytes})",
                fix="mend the device file",
            )


def _orin(name: str, mode: str, memory_mb: int, bandwidth: float, cores: int, ghz: float) -> Device:
    """An Orin: `cores` tensor cores at `ghz`, each 512 INT8 or 256 float16 multiply-adds a cycle [brief]."""
    return Device(
        name=name,
        power_mode=mode,
        memory_bytes=memory_mb * MIB,
        system_bytes=1024 * MIB,
        process_bytes=1024 * MIB,
        bandwidth_gb_s=bandwidth,
        fp16_tflops=round(2 * 256 * cores * ghz / 1e3, 2),
        int8_tops=round(2 * 512 * cores * ghz / 1e3, 2),
        sm=87,
        cma_bytes=256 * MIB,
        source="[module], [brief], [ram], [cma] of hired_edge/planner/devices.py; system_bytes after [idle]",
    )


DEVICES = {
    "orin-nx-16gb": _orin("Jetson Orin NX 16 GB", "MAXN, GPU 918 MHz", 15656, 102.4, 32, 0.918),
    "orin-nx-8gb": _orin("Jetson Orin NX 8 GB", "MAXN, GPU 765 MHz", 7620, 102.4, 32, 0.765),
    "orin-nano-8gb": _orin("Jetson Orin Nano 8 GB", "15 W, GPU 625 MHz", 7620, 68.0, 32, 0.625),
    "agx-orin-64gb": _orin("Jetson AGX Orin 64 GB", "MAXN, GPU 1300 MHz", 62841, 204.8, 64, 1.3),
}


def read_device(name: str) -> Device:
    """A known board by its name, or a JSON file with the fields of `Device`, all of them and no others.

    Raises:
        InputError: neither, or a file that is none.
    """
    if name in DEVICES:
        return DEVICES[name]
    path = Path(name)
    if not os.path.isfile(path):
        raise InputError(
            f"--device {name[:200]}", expected=f"{', '.join(DEVICES)}, or a file", fix="name a board, or check the path"
        )
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES).decode("utf-8")
        return strict.from_json(Device, strict.loads(text, "device"), "device")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise InputError(f"{path} cannot be read ({reason})", expected="JSON in UTF-8", fix="check the file") from None
    except BundleError as error:  # the reader's own word for whatever is not as it should be
        raise InputError(f"{path}: {error.got}", expected=error.expected, fix="mend the device file") from None
