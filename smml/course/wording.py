"""How results are worded on the site: statuses, durations, dates, quantities. Pure: values → text."""

import math
from datetime import datetime
from html import escape

# status -> (symbol, words); the symbol carries the meaning where colour cannot be seen.
STATUS_WORDS = {
    "passed": ("✓", "passed"),
    "failed": ("✗", "failed"),
    "timeout": ("✗", "ran out of time"),
    "interrupted": ("‖", "interrupted"),
    "pending": ("○", "not run"),
}
VERDICT_WORDS = {
    "slower": ("▼", "slower"),
    "faster": ("▲", "faster"),
    "ok": ("✓", "within the band"),
    "no baseline": ("○", "no baseline"),
    "not measured": ("–", "not measured"),
}
_PREFIXES = {-9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P", 18: "E"}
_PREFIXED_UNITS = {
    "s": "s",
    "FLOP": "FLOP",
    "FLOPs": "FLOP",
    "byte": "B",
    "bytes": "B",
    "B": "B",
    "bit": "bit",
    "Hz": "Hz",
    "W": "W",
    "J": "J",
}


def status(name: str) -> str:
    """A status as inline HTML: symbol and word, coloured by its class."""
    symbol, words = STATUS_WORDS[name]
    return f'<span class="status {name}">{symbol} {words}</span>'


def verdict(name: str) -> str:
    """A verdict of a comparison as inline HTML."""
    symbol, words = VERDICT_WORDS.get(name, ("·", name))
    return f'<span class="status {escape(name.replace(" ", "-"))}">{symbol} {escape(words)}</span>'


def duration(seconds: float | None) -> str:
    """Seconds as people say them: 0.4 s, 12 s, 3 min 5 s, 1 h 2 min; a dash for None."""
    if seconds is None:
        return "–"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def day(moment: datetime) -> str:
    """A date: 21 November 2026."""
    return f"{moment.day} {moment:%B %Y}"


def significant(value: float) -> str:
    """Three significant digits without an exponent where that stays short: 0.0123, 1.23, 12.3, 1,230."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if not 1e-4 <= abs(value) < 1e9:
        return f"{value:.2e}"
    value = float(f"{value:.2e}")
    return f"{value:,.{max(2 - math.floor(math.log10(abs(value))), 0)}f}"


def scale(value: float, unit: str) -> tuple[float, str]:
    """The factor and the unit in which `value` is short: (1e9, "GB/s") for 12e9 byte/s."""
    base, slash, per = unit.partition("/")
    if base not in _PREFIXED_UNITS or value <= 0:
        return 1.0, unit
    # Rounding to three digits first keeps 999.7e6 from reading "1,000 M".
    exponent = 3 * math.floor(math.log10(float(f"{value:.2e}")) / 3)
    exponent = min(max(exponent, -9 if base == "s" else 0), 0 if base == "s" else 18)
    return 10.0**exponent, f"{_PREFIXES[exponent]}{_PREFIXED_UNITS[base]}{slash}{per}"


def quantity(value: float | None, unit: str) -> str:
    """A value with its unit and SI prefix: 137 GFLOP/s, 1.20 ms, 1,234 tokens/s; a dash for None."""
    if value is None:
        return "–"
    factor, name = scale(value, unit)
    return f"{significant(value / factor)} {name}".rstrip()


def spread(low: float, high: float, unit: str) -> str:
    """An interval in the unit of its upper end: 131–142 GFLOP/s."""
    factor, name = scale(high, unit)
    return f"{significant(low / factor)}–{significant(high / factor)} {name}".rstrip()


def cell(text: str) -> str:
    """Text for a cell of a Markdown table, shown as it stands."""
    return (
        escape(text, quote=False)
        .translate({ord(c): f"\\{c}" for c in "\\|*_`[]$#"})
        .replace("\n", " ")
    )
