"""A Jetson's power over a profile's timed iterations, by tegrastats."""

from __future__ import annotations

from hired_edge.errors import HiredEdgeError, InputError
from hired_runtime.board.tegrastats import Sampler, available
from hired_runtime.profiling.schema import Power

INTERVAL_MS = 100


def sampler() -> Sampler:
    """What samples while its context is open.

    Raises:
        InputError: this machine has no tegrastats.
    """
    if not available():
        raise InputError(
            "--power on a machine without tegrastats",
            expected="a Jetson, whose tegrastats reads the board's power sensors",
            fix="leave out --power, or in a container mount /usr/bin/tegrastats into it",
        )
    return Sampler(interval_ms=INTERVAL_MS)


def power(sampler: Sampler, window_s: tuple[float, float], answers: int) -> Power:
    """The power from `window_s[0]` to `window_s[1]` (`time.monotonic()`), in which `answers` rows were answered.

    Raises:
        HiredEdgeError: tegrastats reported no power then.
    """
    energy, mean, peak = (f(*window_s) for f in (sampler.energy_j, sampler.power_w, sampler.peak_power_w))
    if energy is None or mean is None:
        raise HiredEdgeError(
            f"tegrastats reported no power in the {window_s[1] - window_s[0]:.1f} s of the timed iterations",
            expected="lines with the board's power rails all along",
            fix="see what tegrastats prints, and measure without --power where it has no rails",
        )
    temperature = sampler.peak_temperature_c(*window_s)
    return Power(
        interval_ms=float(INTERVAL_MS),
        samples=sum(window_s[0] <= sample.time_s <= window_s[1] for sample in list(sampler.samples)),
        rails=tuple(sampler.rails),
        mean_w=round(mean, 3),
        peak_w=round(mean if peak is None else peak, 3),
        energy_per_answer_j=round(energy / answers, 3),
        peak_temperature_c=temperature,
    )
