"""A VM's runner, from the command line's side: starting one, waiting for it, and talking to it."""

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from teleport import errors
from teleport.cli.life import Life, last_agent, life, lock_is_free
from teleport.errors import BusyError, RefusedError, StateError, TeleportError, UnreachableError
from teleport.machines.store import StoredVm, VmPaths

if TYPE_CHECKING:
    from teleport.wire.control_client import ControlClient

CONTROL_SOCKET = "control.sock"
_START_SECONDS = 120.0  # a guest's memory may have to be taken from swap, an accelerator probed
_LOOK_SECONDS = 0.02
_END_SECONDS = 15.0
_KINDS = {each.kind: each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, TeleportError)}


def runner_command(
    vm: StoredVm, home: Path, *, insecure: bool, take_over: bool, foreground: bool, vrde: str = "config"
) -> list[str]:
    """The words that start this VM's runner; `vrde` is on, off, or config for the definition's word."""
    common = ["--home", str(home), "--folder", str(vm.paths.folder)]
    agent = [sys.executable, "-m", "teleport.runner", *common]
    agent += ["--insecure"] if insecure else []
    agent += ["--take-over"] if take_over else []
    agent += ["--foreground"] if foreground else []
    agent += ["--vrde", vrde] if vrde != "config" else []
    return [sys.executable, "-m", "teleport.runner.guardian", *common, "--", *agent]


def connect(vm: StoredVm) -> "ControlClient":
    """This VM's control API; a guest whose runner died gets a new one first. Raises StateError when it does not run."""
    from teleport.wire.control_client import ControlClient  # noqa: PLC0415 - gRPC takes 100 ms, only verbs on running VMs need it

    alive = life(vm.paths)
    if alive is Life.ORPHAN:
        adopt(vm)
    elif alive is Life.NOTHING and vm.paths.saved.is_dir():
        name = shlex.quote(vm.name)
        raise StateError(
            f"VM {vm.name!r}", "is saved", f"teleport startvm {name} goes on, teleport discardstate {name} drops it"
        )
    return ControlClient(vm.paths.run / CONTROL_SOCKET, vm_name=vm.name)


def start_in_background(vm: StoredVm, home: Path, *, insecure: bool, take_over: bool) -> bool:
    """Starts the runner and returns once the guest runs or the teleporter's port is bound; False when a QEMU whose runner died got one.

    Raises BusyError when it runs already, and whatever kept the runner from starting.
    """
    if life(vm.paths) is Life.ORPHAN:
        adopt(vm)
        if not lock_is_free(vm.paths):
            return False
    if not lock_is_free(vm.paths):
        raise BusyError(
            "startvm", f"VM {vm.name!r} runs already (or waits for a teleport)", f"teleport showvminfo {shlex.quote(vm.name)}"
        )
    _start(vm, runner_command(vm, home, insecure=insecure, take_over=take_over, foreground=False), what="startvm")
    return True


def adopt(vm: StoredVm) -> None:
    """Brings a new guardian to a QEMU that lives on without one. Raises what kept it from starting."""
    agent = last_agent(vm.paths)
    if not agent:
        raise StateError(f"VM {vm.name!r}", "its QEMU lives without a runner, and how that was started is not known")
    words = [sys.executable, "-m", "teleport.runner.guardian", "--folder", str(vm.paths.folder), "--adopt", "--", *agent]
    _start(vm, words, what=f"taking up VM {vm.name!r}")


def _start(vm: StoredVm, words: list[str], *, what: str) -> None:
    """Starts a runner and returns once its VM is up."""
    vm.paths.logs.mkdir(parents=True, exist_ok=True)
    forget_startup_error(vm.paths)
    with (vm.paths.logs / "guardian.log").open("ab") as output:
        runner = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd="/"
        )
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if runner.poll() is not None:
            raise startup_error(vm.paths, vm.name, code=runner.returncode)
        if _is_up(vm):
            return
        time.sleep(_LOOK_SECONDS)
    raise UnreachableError(what, f"the runner of VM {vm.name!r} is not up after {_START_SECONDS:g} s", f"see {vm.paths.log}")


def _is_up(vm: StoredVm) -> bool:
    from teleport.wire.control_client import ControlClient  # noqa: PLC0415 - gRPC, only for a VM that runs

    try:
        with ControlClient(vm.paths.run / CONTROL_SOCKET, vm_name=vm.name) as control:
            state = control.status().state
    except (StateError, UnreachableError):
        return False
    return state not in ("poweroff", "starting", "saved", "aborted", "teleported")


def forget_startup_error(paths: VmPaths) -> None:
    """Before a start: what an earlier one left is not ours."""
    (paths.folder / "startup-error.json").unlink(missing_ok=True)


def startup_error(paths: VmPaths, name: str, *, code: int) -> TeleportError:
    """Why a runner ended before its VM was up: the error that it left, whole, or what its log ends with."""
    try:
        left = json.loads((paths.folder / "startup-error.json").read_text())
        kind = _KINDS.get(left["kind"], TeleportError)
        if kind is RefusedError:
            rows = tuple(tuple(row) for row in left.get("findings", ()))
            return RefusedError(left["what"], left["why"], left["hint"], findings=rows)
        return kind(left["what"], left["why"], left["hint"])
    except (OSError, ValueError, KeyError):
        log = paths.logs / "guardian.log"
        last = log.read_text(errors="replace").strip().splitlines()[-1:] if log.exists() else []
        return StateError("startvm", f"the runner of VM {name!r} ended with {code}: {' '.join(last)}", f"see {paths.log}")


def wait_over(vm: StoredVm) -> None:
    """Returns when the old runner is gone and its locks are free. Raises StateError when it takes too long."""
    deadline = time.monotonic() + _END_SECONDS
    while not lock_is_free(vm.paths):
        if time.monotonic() > deadline:
            raise StateError(f"VM {vm.name!r}", f"its runner is still there after {_END_SECONDS:g} s", f"see {vm.paths.log}")
        time.sleep(_LOOK_SECONDS)
