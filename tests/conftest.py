"""Fixtures for tests with real processes: homes that clean up after themselves, the guest, a folder that two hosts share."""

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings

from tests.harness.commands import Commands
from tests.harness.guest import GuestImage, guest_image
from tests.harness.home import Home
from tests.harness.host import Host
from tests.harness.scene import Scene, Stage
from tests.harness.session import begin as begin_of_all
from tests.harness.session import end as end_of_all
from tests.harness.session import passing_folder

# Machines here are shared: how long one example takes says nothing. CI looks at the same examples every time; on demand
# (`HYPOTHESIS_PROFILE=search`) they are new ones.
settings.register_profile("ci", deadline=None, derandomize=True, max_examples=60)
settings.register_profile("search", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

# What takes a minute and more begins first, so that no worker is left alone with it at the end.
_LONG = (
    "test_single_faults", "test_devices", "test_doubt", "test_cancel", "test_teleport", "test_display", "test_states",
    "test_logins", "test_viewers", "test_reattach", "test_soak", "test_live_changes", "test_demo", "test_snapshots",
)  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # not in xdist's workers, which inherit the mark
        begin_of_all()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, object, object]:
    result = yield
    if not hasattr(session.config, "workerinput") and (left := end_of_all()):
        print("\nLEFT BEHIND, and ended now:", *left, sep="\n  ")
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
    return result


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _LONG.index(item.path.stem) if item.path.stem in _LONG else len(_LONG))


@pytest.fixture(scope="session", autouse=True)
def _commands() -> Iterator[None]:
    """The homes' commands start quickly."""
    with Commands() as Home.commands:
        yield
    Home.commands = None


@contextmanager
def _homes() -> Iterator[Callable[[str], Home]]:
    homes: list[Home] = []

    def make(name: str = "h") -> Home:
        homes.append(Home(name))
        return homes[-1]

    yield make
    failures = []
    for home in homes:
        try:
            home.end()
        except (AssertionError, OSError) as error:
            failures.append(error)
    assert not failures, failures


@pytest.fixture
def make_home() -> Iterator[Callable[[str], Home]]:
    """Makes homes; each one's processes, ports and folders are gone when the test ends, however it ends."""
    with _homes() as make:
        yield make


@pytest.fixture(scope="module")
def module_homes() -> Iterator[Callable[[str], Home]]:
    """The same for homes that a module's tests share."""
    with _homes() as make:
        yield make


@pytest.fixture
def home(make_home: Callable[[str], Home]) -> Home:
    """The one home of a test, or its first host."""
    return make_home("a")


@pytest.fixture
def second_home(make_home: Callable[[str], Home]) -> Home:
    """The second host."""
    return make_home("b")


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for unix sockets."""
    with passing_folder() as folder:
        yield folder


@pytest.fixture
def shared_folder(tmp_path: Path) -> Path:
    """A folder that both hosts see, for disks and their owner records."""
    folder = tmp_path / "shared"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def guest() -> GuestImage:
    """The test guest's kernel and initramfs."""
    return guest_image()


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """The scene that a module's tests share."""
    kept = Stage()
    yield kept
    kept.close()


@pytest.fixture
def scene(stage: Stage) -> Iterator[Scene]:
    """Two hosts and a guest that runs at `here`; the next test begins anew if this one fails or leaves it otherwise."""
    current = stage.scene()
    yield current
    stage.done()


@pytest.fixture(scope="session")
def blank() -> Callable[..., Host]:
    """Defines VMs that run without an operating system: there at once, for tests that need no guest's word."""

    def define(name: str, home: Home, disk: Path | None = None, *, memory_mb: int = 64) -> Host:
        host = Host(name, home)
        host.run("createvm", "--name", name, "--ostype", "Linux26_64", "--register")
        host.run("modifyvm", name, "--memory", memory_mb, "--nic1", "nat")
        if disk:
            host.attach(disk)
        return host

    return define
