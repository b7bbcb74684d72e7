"""Values as people write them."""

from fractions import Fraction


def parse_seconds(value: str | float) -> float:
    """2, "2", "2s" or "500ms" in seconds. Raises ValueError."""
    text = str(value).strip()
    if text.endswith("ms"):
        return float(text[:-2]) / 1e3
    return float(text.removesuffix("s"))


def parse_size(value: str) -> tuple[int, int]:
    """ "640x480" as (640, 480). Raises ValueError."""
    width, cross, height = str(value).partition("x")
    if not cross or not width.isdecimal() or not height.isdecimal():
        raise ValueError(f"a size is WIDTHxHEIGHT, such as 640x480, not {value!r}")
    return int(width), int(height)


def parse_rate(value: str | float) -> Fraction:
    """25, 29.97 or "30000/1001" pictures per second. Raises ValueError."""
    try:
        rate = Fraction(str(value))
    except ZeroDivisionError:
        raise ValueError(f"a rate is a number above 0, not {value!r}") from None
    if rate <= 0:
        raise ValueError(f"a rate is a number above 0, not {value!r}")
    return rate
