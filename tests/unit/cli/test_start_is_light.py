"""`teleport --help` stays within four times of `import click` because it imports little: what, not how long, so that no clock decides."""

import json
import subprocess
import sys

import pytest

HEAVY = {
    *(
        "asyncio",
        "grpc",
        "google",
        "pydantic",
        "qemu",
        "blake3",
        "zstandard",
        "rich",
        "tenacity",
        "concurrent",
        "multiprocessing",
    ),
    *("ssl", "subprocess", "socket", "tomllib", "cryptography", "numpy", "aiohttp"),
}
SCRIPT = """
import json, sys
import click
alone = set(sys.modules)
from teleport.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps(sorted(set(sys.modules) - alone)))
"""


@pytest.mark.parametrize("words", [("--help",), ("--version",)])
def test_help_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    ran = subprocess.run([sys.executable, "-c", SCRIPT, *words], capture_output=True, text=True, timeout=60, check=True)
    imported = json.loads(ran.stdout.splitlines()[-1])
    assert {name.split(".")[0] for name in imported} & HEAVY == set()
    assert [name for name in imported if name.startswith(("teleport.runner", "teleport.host", "teleport.wire"))] == []
    assert len(imported) < 60, imported
