"""Numbers as people write them."""

import pytest

from teleport.machines.numbers import seconds, whole_number


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("256MB", "'256MB' is not a number of MB from 4 to 2048, digits alone"),
        ("1.5 GB", "'1.5 GB' is not a number of MB from 4 to 2048, digits alone"),
        ("much", "'much' is not a number of MB from 4 to 2048"),
        ("3", "'3' is not a number of MB from 4 to 2048"),
        ("2_000", "'2_000' is not a number of MB from 4 to 2048"),
        ("٣٢", "'٣٢' is not a number of MB from 4 to 2048"),
        ("0x20", "'0x20' is not a number of MB from 4 to 2048"),
        ("9" * 5000, f"'{'9' * 5000}' is not a number of MB from 4 to 2048"),
    ],
)
def test_what_is_expected_is_said(value: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        whole_number(value, 4, 2048, unit="MB")
    assert str(caught.value) == said


def test_numbers_in_their_range() -> None:
    assert [whole_number(each, 4, 2048, hexadecimal=True) for each in ("4", "0256", "0x20", "0X800")] == [4, 256, 32, 2048]
    with pytest.raises(ValueError, match=r"'x' is not a number from 0 to 1 or host$"):
        whole_number("x", 0, 1, also=" or host")


@pytest.mark.parametrize("value", ["0", "nan", "inf", "-1", "1e3", "10s", "", "1."])
def test_times_are_seconds(value: str) -> None:
    assert seconds("0.1", 0.1) == 0.1
    assert seconds("10", 0.1) == 10
    with pytest.raises(ValueError, match=r"is not a number of seconds from 0\.1 on"):
        seconds(value, 0.1)
