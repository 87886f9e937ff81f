"""Numbers as people read them: bytes, times, ratios and shares, with their unit and a few digits."""

from __future__ import annotations

_PREFIXES = ("B", "kB", "MB", "GB", "TB")


def human_bytes(count: float) -> str:
    """Return bytes with a decimal prefix: 999 B, 1.07 MB, 123 kB."""
    value = float(count)
    for prefix in _PREFIXES[:-1]:
        if abs(value) < 999.5:
            return f"{value:.0f} {prefix}" if prefix == "B" else f"{digits(value)} {prefix}"
        value /= 1000
    return f"{digits(value)} {_PREFIXES[-1]}"


def digits(value: float, count: int = 3) -> str:
    """Return a number with ``count`` significant digits and no exponent: 0.0123, 1.23, 12.3, 1234."""
    if value == 0:
        return "0"
    # The exponent after rounding, so that 9.996 becomes 10.0 and not 10.00.
    exponent = int(f"{abs(value):.{count - 1}e}".partition("e")[2])
    return f"{value:.{min(9, max(0, count - 1 - exponent))}f}"


def ratio(value: float) -> str:
    """Return a ratio: 8.31x."""
    return f"{digits(value)}x"


def percent(share: float, decimals: int = 1) -> str:
    """Return a share as a percentage: 97.2 %; what falls short of the whole never reads 100 %: 99.998 %."""
    while share < 1 and decimals < 9 and float(f"{100 * share:.{decimals}f}") >= 100:
        decimals += 1
    return f"{100 * share:.{decimals}f} %"


def speedup(value: float, low: float | None, high: float | None) -> str:
    """Return how many times as fast, with its interval where there is one: 4.08x (3.97-4.19)."""
    return f"{value:.2f}x" if low is None or high is None else f"{value:.2f}x ({low:.2f}-{high:.2f})"
