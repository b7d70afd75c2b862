"""Which power rails make up a whole board. What a rail feeds is NVIDIA's to say; nothing is measured here.

Source: Jetson Linux Developer Guide r36.4.3, "Jetson Orin Nano Series, Jetson Orin NX Series and Jetson AGX Orin
Series", section "Software-Based Power Consumption Modeling" (rails, and what is part of what); rails of AGX Thor and of
older modules as recorded lines show them (tests/device/recorded/SOURCES.md).
"""

from __future__ import annotations

from collections.abc import Mapping

# One of these is the supply of everything else: VDD_IN on Orin NX, Orin Nano, Xavier NX and TX2, VIN on AGX Thor,
# POM_5V_IN on the Jetson Nano. An AGX Orin has none of them: its rails are summed.
WHOLE = ("VDD_IN", "VIN", "POM_5V_IN")

# Part of VIN_SYS_5V0 (AGX Orin's memory), or not connected: adding them would count twice, or nothing.
NOT_ADDED = ("VDDQ_VDD2_1V8AO", "NC")


def counted(power_mw: Mapping[str, float]) -> tuple[str, ...]:
    """The rails that are added up to the power of the whole board: one of `WHOLE`, or all that are no part of another.

    Empty where no rail is reported (a board without power sensors, or tegrastats without the rights to read them).
    """
    for name in WHOLE:
        if name in power_mw:
            return (name,)
    return tuple(name for name in power_mw if name not in NOT_ADDED)


def board_power_mw(power_mw: Mapping[str, float]) -> float | None:
    """Power of the whole board in mW, or None where no rail is reported. A sum leaves out what no rail measures."""
    names = counted(power_mw)
    return sum(power_mw[name] for name in names) if names else None
