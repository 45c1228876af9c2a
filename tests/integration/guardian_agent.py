"""An agent for the guardian's tests: keeps one tiny QEMU, tells what it sees in FOLDER/told, leaves on SIGTERM or without guardian.

Started by the guardian as ``python guardian_agent.py FOLDER [MODE]``; MODE `fail` leaves with 9 before it is ready, `hopeless` is
ready and leaves with 9 at once.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from teleport.host.guest import QmpGuest
from teleport.runner.guardian_client import GuardianClient
from tests.integration.tiny_qemu import RAM_BYTES, arguments

LEFT_ALONE = 77


async def main(folder: Path) -> int:
    guardian = GuardianClient.from_environment()
    terminated = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminated.set)
    run = folder / "run"
    known = await guardian.list_qemus()
    if known:
        process, ram_fd, adopted = known[0].process, known[0].ram_fd, True
    else:
        argv = arguments(run, "guest", ram_path="/proc/self/fd/{fd:ram}")
        process, ram_fd = await guardian.spawn(
            argv, label="guest", stderr_path=folder / "stderr", ram_bytes=RAM_BYTES, prefault=True
        )
        adopted = False
    guest = await QmpGuest.connect(run / "guest.qmp", run / "guest.oob", process, folder / "stderr")
    assert ram_fd is not None
    await guardian.ready()
    told = {
        "agent": os.getpid(),
        "guardian": os.getppid(),
        "qemu": process.pid,
        "adopted": adopted,
        "restarts": guardian.restarts(),
        "status": await guest.status(),
        "ram_inode": os.fstat(ram_fd).st_ino,
        "ram_blocks": os.fstat(ram_fd).st_blocks,
        "run": str(run.readlink()),
    }
    (folder / "told.new").write_text(json.dumps(told))
    (folder / "told.new").rename(folder / "told")
    ends = [asyncio.ensure_future(guardian.wait_gone()), asyncio.ensure_future(terminated.wait())]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for end in ends:
        end.cancel()
    if not terminated.is_set():
        return LEFT_ALONE
    await guest.quit()
    await guest.close()
    await guardian.forget(process)
    await guardian.finish(5)
    return 0


async def hopeless() -> int:
    await GuardianClient.from_environment().ready()
    return 9


match sys.argv[2:]:
    case ["fail"]:
        sys.exit(9)
    case ["hopeless"]:
        sys.exit(asyncio.run(hopeless()))
    case _:
        sys.exit(asyncio.run(main(Path(sys.argv[1]))))
