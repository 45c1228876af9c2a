"""`python -m teleport.runner.discard --home HOME --folder MACHINE_FOLDER`: drops a saved state, and lets the guest go.

The guest on the disk is nobody's then, as after a clean shutdown: whoever comes first may start it. An error is left in
`startup-error.json`, as a runner does.
"""

import argparse
import asyncio
import fcntl
import json
import os
import sys
from pathlib import Path

from teleport.errors import BusyError, TeleportError
from teleport.machines import saved_state
from teleport.machines.attached import owner_record_folder
from teleport.machines.store import VmPaths
from teleport.machines.text import parse_definition
from teleport.model import Owner, VmState
from teleport.runner.ownership import NoRecord, host_identity, record_at, set_free
from teleport.runner.state import StateFile


async def discard(home: Path, paths: VmPaths) -> None:
    """Raises TeleportError. A record that cannot be read keeps this VM as its owner, which may start the guest."""
    lock = os.open(paths.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError("discardstate", "the VM is being started", "see showvminfo") from error
        definition = parse_definition(paths.definition.read_bytes(), paths.definition)
        me = Owner(host=host_identity(), home=str(home), vm_uuid=definition.uuid, vm_name=definition.name, epoch="")
        saved_state.discard(paths)
        StateFile(paths.folder / "state.json").set(VmState.POWEROFF, "its saved state was discarded")
        record = record_at(owner_record_folder(definition), me)
        if not isinstance(record, NoRecord):
            view = await record.read()
            if view.owner.same_vm(me):
                await set_free(record, view.generation)
    finally:
        os.close(lock)


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="teleport.runner.discard", description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    paths = VmPaths(arguments.folder)
    try:
        asyncio.run(discard(arguments.home, paths))
    except TeleportError as error:
        left = {"kind": error.kind, "what": error.what, "why": error.why, "hint": error.hint}
        (paths.folder / "startup-error.json").write_text(json.dumps(left))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
