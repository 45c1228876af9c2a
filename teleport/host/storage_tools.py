"""Programs that look at storage, bounded: one that does not answer is killed."""

import asyncio
import contextlib
import os
from collections.abc import Mapping, Sequence

from teleport.errors import StorageError


async def output_of(
    program: str,
    arguments: Sequence[str],
    *,
    what: str,
    timeout_seconds: float,
    descriptors: Sequence[int] = (),
    environment: Mapping[str, str] | None = None,
) -> str:
    """Runs one of QEMU's tools. Raises StorageError in its words when it fails, TimeoutError when it is given up."""
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=descriptors,
            env={**os.environ, **(environment or {})},
        )
    except FileNotFoundError as error:
        raise StorageError(program, "is not installed", "install qemu-utils") from error
    try:
        async with asyncio.timeout(timeout_seconds):
            output, complaint = await process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):  # it ended by itself meanwhile
            process.kill()
        raise
    if process.returncode != 0:
        words = complaint.decode(errors="replace").strip().removeprefix(f"{program}: ")
        for name in (what, arguments[-1]):
            words = words.removeprefix("can't open device " + name + ": ").removeprefix(f"Could not open '{name}': ")
        raise StorageError(what, words or f"{program} ended with {process.returncode}")
    return output.decode(errors="replace")
