"""The agent process: `python -m teleport.runner --home HOME --folder MACHINE_FOLDER`, started by the guardian.

All wiring is here. An error before the VM runs is left in `startup-error.json` beside the definition, for the command that waits.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from pathlib import Path

from teleport.errors import RefusedError, TeleportError, UnreachableError
from teleport.host.priority import FIRST_NICE
from teleport.machines.store import VmPaths
from teleport.machines.text import parse_definition
from teleport.runner.agent import Agent, AgentOptions
from teleport.runner.beginning import begin
from teleport.runner.control import ControlHandlers
from teleport.runner.guardian_client import GuardianClient
from teleport.runner.leaving import leave
from teleport.wire.allocator import keep_freed_memory
from teleport.wire.control_server import ControlServer

log = logging.getLogger("teleport.runner")


def main() -> int:
    """Runs the agent; its exit code is the runner's."""
    parser = argparse.ArgumentParser(prog="teleport.runner", description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--insecure", action="store_true")
    parser.add_argument("--take-over", action="store_true")
    parser.add_argument("--vrde", choices=("on", "off"), help="the remote display, whatever the definition says")
    parser.add_argument("--foreground", action="store_true", help="log to the terminal too")
    arguments = parser.parse_args()
    paths = VmPaths(arguments.folder)
    _log_to(paths, foreground=arguments.foreground)
    options = AgentOptions(
        home=arguments.home,
        paths=paths,
        insecure=arguments.insecure,
        take_over=arguments.take_over,
        display=None if arguments.vrde is None else arguments.vrde == "on",
    )
    # Idle but in a teleport, and then everything waits for it: where it may, the agent goes before vCPUs that keep all cores busy.
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, FIRST_NICE)
    keep_freed_memory()
    return asyncio.run(_run(options))


def _log_to(paths: VmPaths, *, foreground: bool) -> None:
    paths.logs.mkdir(parents=True, exist_ok=True)
    handlers: list[logging.Handler] = [logging.FileHandler(paths.log)]
    if foreground:
        handlers.append(logging.StreamHandler(sys.stdout))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname).1s %(message)s", handlers=handlers)


async def _run(options: AgentOptions) -> int:
    guardian = GuardianClient.from_environment()
    loop = asyncio.get_running_loop()
    runtime = (options.paths.folder / "run").resolve()
    startup_error = options.paths.folder / "startup-error.json"
    startup_error.unlink(missing_ok=True)
    control: ControlServer | None = None
    code = 1
    try:
        definition = parse_definition(options.paths.definition.read_bytes(), options.paths.definition)
        agent = Agent(definition, options, guardian, runtime=runtime)
        handlers = ControlHandlers(agent)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, handlers.shutdown)
        control = ControlServer(handlers, path=runtime / "control.sock")
        await control.start()
        running = asyncio.ensure_future(agent.run(begin))
        orphaned = asyncio.ensure_future(guardian.wait_gone())
        await asyncio.wait({running, orphaned}, return_when=asyncio.FIRST_COMPLETED)
        orphaned.cancel()
        if not running.done():
            await leave(agent)
            await control.stop()  # whoever waits for a teleport's end hears of it
            os._exit(1)
        code = running.result()
    except TeleportError as error:
        log.error("%s", error)
        findings = error.findings if isinstance(error, RefusedError) else ()
        startup_error.write_text(
            json.dumps({"kind": error.kind, "what": error.what, "why": error.why, "hint": error.hint, "findings": findings})
        )
        code = error.exit_code
    finally:
        if control:
            await control.stop()
    with contextlib.suppress(UnreachableError):  # its guardian died meanwhile: there is nothing to guard any more
        await guardian.finish(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
