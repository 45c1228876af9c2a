"""What the entry point `rdp` of the group ``teleport.vrde`` finds."""

from collections.abc import Mapping

from teleport.machines.vrde_properties import RDP_PROPERTIES, Property
from teleport.vrde.extension import Context, DisplayServer
from teleport.vrde.rdp.xrdp import INSTALL_HINT, problem


class RdpExtension:
    """RDP for any viewer; needs xrdp."""

    name = "rdp"

    @property
    def properties(self) -> Mapping[str, Property]:
        """See teleport.vrde.extension.Extension."""
        return RDP_PROPERTIES

    def problem(self) -> str:
        """See teleport.vrde.extension.Extension."""
        return f"{problem()}: {INSTALL_HINT}" if problem() else ""

    def serve(self, context: Context) -> DisplayServer:
        """See teleport.vrde.extension.Extension."""
        from teleport.vrde.rdp.server import RdpServer  # noqa: PLC0415  # the CLI asks for properties: it needs no TLS for that

        return RdpServer(context)


EXTENSION = RdpExtension()
