"""7.1.10's switches as the relay and xrdp get them; what a viewer then sees is in tests/integration/test_logins.py and vrde/."""

from collections.abc import Callable

import pytest

from teleport.machines.vrde import ClipboardMode, VrdeSettings, set_extradata, set_option, set_property
from teleport.vrde.gates import Gates
from teleport.vrde.rdp import xrdp

GATES: dict[str, Callable[[Gates], bool]] = {
    "Display": lambda gates: gates.display,
    "Input": lambda gates: gates.input,
    "Audio": lambda gates: gates.audio,
    "UpstreamAudio": lambda gates: gates.microphone,
    "Clipboard": lambda gates: gates.clipboard,
}


@pytest.mark.parametrize("feature", GATES)
def test_each_switch_closes_its_gate_alone_and_opens_it_again(feature: str) -> None:
    everything = VrdeSettings(clipboard=ClipboardMode.BIDIRECTIONAL)

    def passing(settings: VrdeSettings | None) -> set[str]:
        assert settings is not None
        return {name for name, passes in GATES.items() if passes(Gates.of(settings))}

    assert passing(everything) == set(GATES)
    for off in (
        set_property(everything, f"Client/Disable{feature}", "1"),
        set_extradata(everything, f"VRDP/Feature/Client/Disable{feature}", "1"),
    ):
        assert passing(off) == set(GATES) - {feature}
        assert off is not None
        assert passing(set_property(off, f"Client/Disable{feature}", "")) == set(GATES)
        assert passing(set_extradata(off, f"VRDP/Feature/Client/Disable{feature}", "")) == set(GATES)


@pytest.mark.parametrize(
    ("mode", "inwards", "outwards"),
    [("disabled", False, False), ("hosttoguest", True, False), ("guesttohost", False, True), ("Bidirectional", True, True)],
)
def test_each_mode_of_the_clipboard_lets_text_pass_one_way(mode: str, inwards: bool, outwards: bool) -> None:
    gates = Gates.of(set_option(VrdeSettings(), "clipboard", mode))
    assert (gates.clipboard_in, gates.clipboard_out) == (inwards, outwards)


def test_a_viewers_own_devices_reach_nobody() -> None:
    """They would come over the channel rdpdr (MS-RDPEFS): xrdp does not open it."""
    assert "rdpdr=false\n" in xrdp._GLOBALS
