"""Numbers as people write them: which are taken, and what is said to the others."""

import re

_NUMBER_AND_UNIT = re.compile(r"[0-9]+(\.[0-9]+)?\s*[^\s0-9.]+")


def whole_number(value: str, low: int, high: int, *, unit: str = "", also: str = "", hexadecimal: bool = False) -> int:
    """A whole number from `low` to `high` in decimal digits, or as 0x… too. Raises ValueError that says what is expected: in which
    `unit`, and what else is taken (`also`)."""
    pattern = "0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20}" if hexadecimal else "[0-9]{1,20}"
    if re.fullmatch(pattern, value):
        number = int(value, 16 if value[:2] in ("0x", "0X") else 10)
        if low <= number <= high:
            return number
    raise _refusal(value, f"from {low} to {high}", unit=unit, also=also)


def seconds(value: str, least: float) -> float:
    """A number of seconds, `least` or more. Raises ValueError."""
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value) and float(value) >= least:
        return float(value)
    raise _refusal(value, f"from {least} on", unit="seconds")


def _refusal(value: str, span: str, *, unit: str, also: str = "") -> ValueError:
    alone = ", digits alone" if _NUMBER_AND_UNIT.fullmatch(value) else ""
    return ValueError(f"{value!r} is not a number{unit and f' of {unit}'} {span}{also}{alone}")
