import shutil
import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def short_folder():
    """A folder whose path is short enough for unix sockets."""
    path = Path(tempfile.mkdtemp(prefix="tv-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)
