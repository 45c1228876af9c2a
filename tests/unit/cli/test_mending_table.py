"""No option that a guest sees is added without a difference of it in the table of `test_mending`."""

import re

from teleport.machines.options import OPTIONS
from tests.unit.cli.test_mending import CHANGES


def _names(settings: set[str]) -> set[str]:
    known = {option.name for option in OPTIONS}
    return {name if name in known else re.sub(r"[0-9]+$", "", name) for name in settings}


def test_every_option_that_the_guest_sees_is_made_to_differ() -> None:
    compared = {option.name for option in OPTIONS if option.hardware}
    tried = _names(set().union(*(differs for _, differs in CHANGES)))
    assert tried == compared, tried ^ compared
