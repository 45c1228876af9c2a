"""krdc sees a guest, and keeps its connection through a teleport: `.venv/bin/python -m tests.bench.vrde_krdc`.

Not in CI, since KDE's viewer brings 120 packages: `apt-get install --no-install-recommends krdc dbus-daemon` first. It runs under
xfreerdp's library, which CI drives by itself. Exits 1 with krdc's words when something is wrong; pictures are where the tests' are.
"""

import asyncio
import os
import sys

from tests.harness.home import end_on_sigterm
from tests.integration.test_display import Pair, ended
from tests.integration.vrde.desk import Viewer, until

RETURN = 36
GREEN = b"\0\xa8\0"  # behind the counter, BGR
WINDOW = "1024x768"


def main() -> int:
    """One teleport."""
    end_on_sigterm()
    with ended(Pair()) as pair:
        settings = pair.folder / ".config"
        settings.mkdir()
        (settings / "kwalletrc").write_text("[Wallet]\nEnabled=false\n")
        os.environ |= {"XDG_CONFIG_HOME": str(settings)}
        port = pair.start()
        viewer = Viewer(pair.folder, "dbus-run-session", "--", "krdc", f"rdp://john@127.0.0.1:{port}", size=WINDOW)
        pair.viewers.append(viewer)

        def seen() -> bool:
            if viewer.x.image().count(GREEN) > 200:
                return True
            viewer.x.fake(6, 0, 500, 380)  # its dialogs: preferences, the certificate, a password (there is none)
            for kind in (2, 3):
                viewer.x.fake(kind, RETURN)
            return False

        def moves() -> bool:
            pictures.add(viewer.x.image())
            return len(pictures) > 4

        try:
            asyncio.run(until(seen, 60, "the guest in krdc"))
            viewer.x.shot("krdc-before")
            connections = pair.connections(port)
            pair.here.teleport(pair.there.wait_for_teleport())
            pair.swap()
            pictures: set[bytes] = set()
            asyncio.run(until(moves, 20, "a moving picture"))
            print(f"krdc sees the guest after the teleport too: {viewer.x.shot('krdc-after')}")
            assert pair.connections(port) == connections, "it had to connect again"
        except AssertionError as error:
            print(f"{error}\n{viewer.words()}\n{pair.logs()}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
