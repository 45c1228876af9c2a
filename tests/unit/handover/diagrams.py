"""docs/handover.md's diagrams: written from the tables, and compared with them."""

import re
from pathlib import Path

from teleport.handover.source import SOURCE
from teleport.handover.target import TARGET

PAGE = Path(__file__).parents[3] / "docs" / "handover.md"


def current(text: str) -> str:
    """The page with the diagrams of today's tables."""
    diagrams = iter((SOURCE.diagram(), TARGET.diagram()))
    return re.sub(r"```mermaid\n.*?```", lambda _: f"```mermaid\n{next(diagrams)}```", text, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(current(PAGE.read_text()))
