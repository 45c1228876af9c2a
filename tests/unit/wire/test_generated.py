"""What is committed in teleport/wire/_generated is what proto/ says today."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
GENERATED = ROOT / "teleport" / "wire" / "_generated"


def _texts(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.py*") if path.suffix in (".py", ".pyi")}


def test_the_generated_code_is_current(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "deploy" / "generate", tmp_path], check=True, timeout=60)
    made = _texts(tmp_path)
    assert made
    assert made == _texts(GENERATED), "run: .venv/bin/python deploy/generate"
