"""Numbers as people read them."""

from slimnet.records import Shapes

MINUS = "\N{MINUS SIGN}"


def shape_text(shape: Shapes) -> str:
    """Return the shape of one input as 3,224,224; of several with "and" between them."""
    if any(isinstance(one, tuple) for one in shape):
        return " and ".join(shape_text(one) for one in shape if isinstance(one, tuple))
    return ",".join(map(str, shape))


def count(value: int) -> str:
    """Return a count: thousands separated, from 100,000 on in k, M, G or T to three digits."""
    return f"{value:,}" if value < 100_000 else _scaled(value)


def file_size(size_bytes: int) -> str:
    """Return a size in B, kB (1000 bytes), MB or GB to three digits."""
    return f"{size_bytes} B" if size_bytes < 1000 else f"{_scaled(size_bytes)}B"


def milliseconds(value_ms: float) -> str:
    """Return a duration in milliseconds, to three digits from 1 ms on."""
    return f"{value_ms:.3f} ms" if value_ms < 0.9995 else f"{three_digits(value_ms)} ms"


def is_share(quantity: str) -> bool:
    """Return whether a score is a share of images; the user's own scores may be anything."""
    return quantity in ("accuracy", "agreement", "balanced accuracy", "recall")


def level(value: float, quantity: str) -> str:
    """Return a score with two decimals, in percent if it is a share of the images."""
    return f"{value:.2f} %" if is_share(quantity) else f"{value:.2f}"


def capitalized(quantity: str) -> str:
    """Return a name as a sentence begins, with a capital letter."""
    return quantity[:1].upper() + quantity[1:]


def points(drop_points: float) -> str:
    """Return a drop in percentage points as a change: a loss has a minus sign."""
    if round(drop_points, 2) == 0:
        return "0.00"
    return f"{MINUS if drop_points > 0 else '+'}{abs(drop_points):.2f}"


def signed(value: float | None) -> str:
    """Return a correlation with two decimals, "–" for none."""
    if value is None:
        return "–"
    text = f"{abs(value):.2f}"
    return f"{MINUS}{text}" if value < 0 and float(text) else text


def change(before: float, after: float) -> str:
    """Return how a size changed, as a factor and in percent: "÷ 2.40 (−58 %)"."""
    if before == after:
        return "unchanged"
    if after <= 0 or before <= 0:
        return f"{MINUS}100 %" if after <= 0 else "new"
    if after < before:
        return f"÷ {three_digits(before / after)} ({_signed_share(MINUS, 1 - after / before)})"
    return f"× {three_digits(after / before)} ({_signed_share('+', after / before - 1)})"


def share(part: float) -> str:
    """Return a positive part of 1 in percent, whole from 10 % on; only 1 itself is "100 %"."""
    value = 100 * part
    if value < 0.1:
        return "less than 0.1 %"
    if 99.5 <= value < 100:
        return "99.9 %" if value >= 99.9 else f"{value:.1f} %"
    return f"{value:.1f} %" if value < 9.95 else f"{value:.0f} %"


def three_digits(value: float) -> str:
    """Return a number with three digits, or all of them before the point."""
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:,.{digits}f}"


def _signed_share(sign: str, part: float) -> str:
    return share(part) if part < 0.001 else sign + share(part)


def _scaled(value: int) -> str:
    scaled = float(value)
    for unit in ("k", "M", "G"):
        scaled /= 1000
        if scaled < 999.5:
            return f"{three_digits(scaled)} {unit}"
    return f"{three_digits(scaled / 1000)} T"
