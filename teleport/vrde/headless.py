"""The extension `none`: no port for viewers. A front with it has screens, a tunnel and a console all the same, for a target whose own
display is off while another host's front goes on serving the viewers that came with the guest."""

from collections.abc import Mapping

from teleport.machines.vrde import VrdeSettings
from teleport.machines.vrde_properties import Property
from teleport.vrde.extension import Bound, Context, DisplayServer


class _NoServer:
    async def start(self) -> Bound:
        return Bound(0, ())

    async def stop(self) -> None:
        return

    async def update(self, settings: VrdeSettings) -> None:
        del settings

    def details(self) -> Mapping[str, str]:
        return {}


class HeadlessExtension:
    """No display of its own."""

    name = "none"

    @property
    def properties(self) -> Mapping[str, Property]:
        """See teleport.vrde.extension.Extension."""
        return {}

    def problem(self) -> str:
        """See teleport.vrde.extension.Extension."""
        return ""

    def serve(self, context: Context) -> DisplayServer:
        """See teleport.vrde.extension.Extension."""
        del context
        return _NoServer()


EXTENSION = HeadlessExtension()
