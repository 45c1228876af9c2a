"""The listener must see what it is there to see: lost words, forks, steps back, and a line cut by the switchover."""

import socket
from pathlib import Path

import pytest

from tests.harness.ticker import FileTail, SocketServer, Tick, Ticker, judge


def ticks(*counters: int) -> list[Tick]:
    return [
        Tick(arrival_seconds=at * 0.005, endpoint="s", counter=counter, guest_ms=counter * 5)
        for at, counter in enumerate(counters)
    ]


def test_an_even_count_is_whole() -> None:
    seen = judge(ticks(1, 2, 3, 4))
    assert seen.is_whole
    assert seen.median_ms == pytest.approx(5)


def test_what_is_wrong_is_named() -> None:
    assert judge(ticks(1, 2, 5)).missing == ((2, 5),)
    assert judge(ticks(1, 2, 3, 2, 3, 4)).repeated == (2, 3)
    assert judge(ticks(1, 2, 3, 2, 3, 4)).backward == ((3, 2),)
    assert judge([*ticks(1), Tick(1, "t", 2, 0)]).clock_back == ((5, 0),)
    for wrong in (ticks(1, 3), ticks(1, 1), ticks(2, 1)):
        assert not judge(wrong).is_whole


def test_the_gap_is_the_longest_silence() -> None:
    seen = judge([Tick(0.0, "s", 1, 5), Tick(0.01, "s", 2, 10), Tick(0.21, "t", 3, 15), Tick(0.22, "t", 4, 20)])
    assert seen.gap_ms == pytest.approx(200)
    assert (seen.gap_before.endpoint, seen.gap_after.endpoint) == ("s", "t")
    assert seen.endpoints == ("s", "t")
    assert seen.switchover_ms == pytest.approx(200)
    assert judge(ticks(1, 2)).switchover_ms is None


def test_one_tick_says_nothing() -> None:
    with pytest.raises(ValueError, match="fewer than two"):
        judge(ticks(1))


def listen(path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    server.settimeout(10)
    return server


def test_a_line_cut_by_the_switchover_is_one_line(tmp_path: Path) -> None:
    with (
        listen(tmp_path / "s") as source_server,
        listen(tmp_path / "t") as target_server,
        Ticker(SocketServer(tmp_path / "s", "source"), SocketServer(tmp_path / "t", "target")) as ticker,
    ):
        source, _ = source_server.accept()
        target, _ = target_server.accept()
        with source, target:
            source.sendall(b"READY now\nTICK 1 10\nTICK 2 1")
            ticker.wait_for("READY now", 10)
            ticker.wait_for_tick(10)
            source.shutdown(socket.SHUT_WR)
            target.sendall(b"5\nTICK 3 20\n")
            ticker.wait_for_tick(10, endpoint="target", after_counter=2)
            seen = ticker.continuity()
            assert seen.is_whole, seen
            assert seen.endpoints == ("source", "target")
            ticker.send("CHECK")
            assert target.recv(100) == b"CHECK\n"


def test_a_line_cut_by_a_source_that_took_one_more_connection_before_it_ended_is_one_line(tmp_path: Path) -> None:
    """A paused guest: its tail comes long after the source has gone, and its listener may be the last of it to go."""
    with (
        listen(tmp_path / "s") as source_server,
        listen(tmp_path / "t") as target_server,
        Ticker(SocketServer(tmp_path / "s", "source"), SocketServer(tmp_path / "t", "target")) as ticker,
    ):
        source, _ = source_server.accept()
        target, _ = target_server.accept()
        with target:
            with source:
                source.sendall(b"TICK 1 10\nTICK 2 1")
                ticker.wait_for_tick(10)
            once_more, _ = source_server.accept()
            once_more.close()
            source_server.accept()[0].close()  # come to once more: the one before was closed at its end too
            target.sendall(b"5\nTICK 3 20\n")
            ticker.wait_for_tick(10, endpoint="target", after_counter=2)
            seen = ticker.continuity()
            assert seen.is_whole, seen
            assert seen.ticks == 3


def test_a_socket_is_found_when_it_comes_and_comes_again(tmp_path: Path) -> None:
    with Ticker(SocketServer(tmp_path / "s", "source")) as ticker:
        for counter in (1, 2):
            with listen(tmp_path / "s") as server:
                connection, _ = server.accept()
                with connection:
                    connection.sendall(b"half a line TICK 9 9\n" if counter == 2 else b"")
                    connection.sendall(f"TICK {counter} 0\n".encode())
                    ticker.wait_for_tick(10, after_counter=counter - 1)
            (tmp_path / "s").unlink()
        assert ticker.continuity().is_whole


def test_a_file_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "ttyS1"
    with Ticker(FileTail(path)) as ticker, path.open("ab", buffering=0) as file:
        file.write(b"TICK 1 1\nTI")
        ticker.wait_for_tick(10)
        file.write(b"CK 2 2\nCORRUPT x\n")
        ticker.wait_for_tick(10, after_counter=1)
        assert [line.text for line in ticker.lines("CORRUPT")] == ["CORRUPT x"]
        with pytest.raises(RuntimeError, match="nobody can be spoken to"):
            ticker.send("PING x")
        with pytest.raises(TimeoutError, match="CORRUPT x"):
            ticker.wait_for("READY", 0.01)
