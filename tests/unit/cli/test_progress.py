"""A teleport on a terminal: one bar that is redrawn, its figures beside it; and the preflight's table below it when it is refused."""

import os
import pty
import re
import subprocess
import sys

_SHOWN = """
import sys
from teleport.cli.progress import shown_on
from teleport.errors import RefusedError
from teleport.model import Outcome, OutcomeKind, Progress, Stage
with shown_on(sys.stdout, as_json=False, detailed=False) as shown:
    shown.progress(Progress(stage=Stage.CHECKING, percent=0))
    look = dict(stage=Stage.COPYING, round=2, sent_bytes=120_000_000, remaining_bytes=30_000_000, rate_bytes_per_second=50e6)
    shown.progress(Progress(percent=43, dirty_bytes_per_second=8e6, eta_seconds=1.2, **look))
    shown._bars.refresh()
    shown.progress(Progress(percent=44, dirty_bytes_per_second=90e6, converging=False, **look))
    shown._bars.refresh()
    shown.note("warning: a word beside it")
    shown.finish(Outcome(kind=OutcomeKind.MOVED))
"""


def on_a_terminal(program: str) -> str:
    """What it writes, without the terminal's control sequences; a redrawn line is a line."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "200"}
    with subprocess.Popen([sys.executable, "-c", program], stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        said = b""
        while True:
            try:
                said += (more := os.read(ours, 65536))
            except OSError:  # Linux' end of a terminal
                break
            if not more:
                break
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode()).replace("\r", "\n")
    assert process.returncode == 0, text
    return text


def test_a_bar_with_its_figures() -> None:
    said = on_a_terminal(_SHOWN)
    figures = "copying, round 2, 120 MB sent, 50 MB/s, guest writes 8 MB/s, 30 MB left, about 1 s"
    assert re.search(rf"(?m)^ 43% ━.* {figures}", said), said
    assert re.search(r"(?m)^ 44% ━.* guest writes 90 MB/s, 30 MB left, does not converge", said), said
    assert "warning: a word beside it" in said
    assert re.search(r"(?m)^100% ━.* moved", said), said
    percents = [int(each) for each in re.findall(r"(?m)^\s*(\d+)% ", said)]
    assert percents == sorted(percents), "it went back"
