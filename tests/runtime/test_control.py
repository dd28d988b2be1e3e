from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tengri_fast.errors import ConfigurationError, NeuralIntegrationError
from tengri_fast.runtime import ControlClient, ControlServer, RunControl
from tengri_fast.runtime import control as module
from tengri_fast.runtime.control import MAX_REQUEST_BYTES, MAX_SOCKET_PATH, ControlError, default_socket_path


class Switch:
    """A stand-in for a gate: remembers what it was told."""

    def __init__(self) -> None:
        self.kills: dict[str, str] = {}
        self.calls: list[tuple[str, str, str]] = []
        self.threads: set[str] = set()
        self.counters = {"submitted": np.int64(3), "denied": {"MAX_POSITION": 1}}
        self.fail: Exception | None = None

    def kill(self, name: str, reason: str) -> None:
        self.threads.add(threading.current_thread().name)
        if self.fail is not None:
            raise self.fail
        self.calls.append(("kill", name, reason))
        self.kills.setdefault(name, reason)

    def rearm(self, name: str, reason: str) -> None:
        self.calls.append(("rearm", name, reason))
        self.kills.clear()

    @property
    def killed(self) -> bool:
        return bool(self.kills)

    def status(self) -> dict[str, object]:
        return {
            "killed": self.killed,
            "size": Decimal("0.1"),
            "array": np.arange(3),
            "odd": Path("/x"),
            "nan": float("nan"),
        }


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Waits for another thread; the time is only a bound against hanging."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.005)
    return condition()


@pytest.fixture
def folder() -> Iterator[Path]:
    # pytest's own temporary paths can be longer than a socket's path may be.
    with tempfile.TemporaryDirectory(prefix="tg") as name:
        yield Path(name)


@pytest.fixture
def switch() -> Switch:
    return Switch()


@pytest.fixture
def server(folder: Path, switch: Switch) -> Iterator[ControlServer]:
    server = ControlServer(
        switch.status, switch.kill, switch.rearm, folder / "c.sock", folder / "STOP", poll_interval=0.01
    )
    with server:
        yield server


def raw(path: Path, data: bytes, answers: int = 1) -> list[dict[str, object]]:
    """Send bytes as they are and read as many answers."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10.0)
        connection.connect(str(path))
        connection.sendall(data)
        stream = connection.makefile("rb")
        return [json.loads(line) for line in (stream.readline() for _ in range(answers)) if line]


# ---------------------------------------------------------------- commands


def test_commands(server, switch):
    client = ControlClient(server.socket_path)
    assert client.ping() == {"pid": os.getpid()}
    status = client.status()
    assert status["killed"] is False
    assert status["size"] == "0.1"
    assert status["array"] == [0, 1, 2]
    assert status["odd"] == "/x"
    assert status["nan"] is None
    assert status["control"]["pid"] == os.getpid()
    assert status["control"]["kill_file_seen"] is False
    assert client.kill(" alice ", "fat finger") == {"killed": True}
    assert client.status()["killed"] is True
    assert client.rearm("bob", "checked") == {"killed": False}
    assert switch.calls == [("kill", "alice", "fat finger"), ("rearm", "bob", "checked")]
    assert switch.threads == {"tengri-control"}


@pytest.mark.parametrize("command", ["kill", "rearm"])
@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "`name` must be given"),
        ({"name": "a"}, "`reason` must be given"),
        ({"name": "  ", "reason": "x"}, "`name` must be given"),
        ({"name": "a", "reason": "x" * 2001}, "at most 2000 printable characters"),
        ({"name": "a\nb", "reason": "x"}, "`name` must be at most 200 printable"),
    ],
)
def test_who_and_why_are_needed(server, switch, command, fields, text):
    with pytest.raises(ControlError, match=text):
        ControlClient(server.socket_path).request(command, **fields)
    assert switch.calls == []


def test_several_requests_on_one_connection_and_ids(server):
    found = raw(
        server.socket_path, b'{"command":"ping","id":7}\n\n{"command":"nope","id":"x"}\n{"command":"ping"}\n', 3
    )
    assert found[0] == {"ok": True, "result": {"pid": os.getpid()}, "id": 7}
    assert found[1] == {
        "ok": False,
        "error": "`command` must be one of ping, status, portfolio, kill, rearm, was 'nope'",
        "id": "x",
    }
    assert found[2] == {"ok": True, "result": {"pid": os.getpid()}}


def test_a_request_in_pieces(server):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10.0)
        connection.connect(str(server.socket_path))
        for byte in b'{"command":"ping"}\n':
            connection.send(bytes([byte]))
        assert json.loads(connection.makefile("rb").readline())["ok"] is True


@pytest.mark.parametrize(
    "data",
    [b"hello", b"{", b"[]", b"1", b'"ping"', b"{}", b'{"command":1}', b'{"command":"ping","x":1}', b"\xff\xfe",
     b"\x00" * 10, b"[" * 60_000, b'{"command":"ping","id":[]}', b'{"command":"kill","name":1,"reason":2}'],
)  # fmt: skip
def test_malformed_requests_are_answered(server, switch, data):
    found = raw(server.socket_path, data + b'\n{"command":"ping"}\n', 2)
    assert found[0]["ok"] is False
    assert "must be a JSON object" in str(found[0]["error"])
    assert found[1]["ok"] is True
    assert switch.calls == []


def test_an_oversize_request_is_answered_and_the_next_one_works(server):
    padding = b"x" * (3 * MAX_REQUEST_BYTES)
    found = raw(server.socket_path, b'{"command":"' + padding + b'"}\n{"command":"ping"}\n', 2)
    assert found[0] == {"ok": False, "error": f"a request must be at most {MAX_REQUEST_BYTES} bytes"}
    assert found[1]["ok"] is True
    exact = json.dumps({"command": "kill", "name": "a", "reason": ""})
    fits = exact[:-2] + "y" * (MAX_REQUEST_BYTES - len(exact)) + '"}'
    assert "at most 2000 printable" in str(raw(server.socket_path, fits.encode() + b"\n")[0]["error"])
    # One that is too long and never ends is answered without its newline.
    assert "at most" in str(raw(server.socket_path, b"z" * (2 * MAX_REQUEST_BYTES))[0]["error"])


def test_a_client_that_sends_without_end_is_cut_off(server, monkeypatch):
    monkeypatch.setattr(module, "MAX_DISCARDED_BYTES", 4 * MAX_REQUEST_BYTES)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10.0)
        connection.connect(str(server.socket_path))
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            connection.sendall(b"z" * (1000 * MAX_REQUEST_BYTES))
    assert ControlClient(server.socket_path).ping()


def test_an_idle_client_is_dropped(server, monkeypatch):
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.0)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10.0)
        connection.connect(str(server.socket_path))
        assert connection.recv(1) == b""


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_leave_the_server_alive(server, data, close_early):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10.0)
        connection.connect(str(server.socket_path))
        connection.sendall(data + b"\n")
        if not close_early:
            lines = [line for line in (data + b"\n").split(b"\n") if line.strip()]
            stream = connection.makefile("rb")
            assert all(json.loads(stream.readline())["ok"] is False for _ in lines)
    assert ControlClient(server.socket_path).ping()["pid"] == os.getpid()


def test_what_a_callback_raises_is_told(server, switch):
    client = ControlClient(server.socket_path)
    switch.fail = ZeroDivisionError("by zero")
    with pytest.raises(ControlError, match="kill failed: ZeroDivisionError: by zero"):
        client.kill("a", "b")
    switch.fail = NeuralIntegrationError("not now")
    with pytest.raises(ControlError, match=r"^not now$"):
        client.kill("a", "b")
    assert client.ping()


def test_a_status_that_json_cannot_hold_is_an_answer(folder):
    loop: dict[str, object] = {}
    loop["self"] = loop
    with ControlServer(lambda: loop, lambda *_: None, lambda *_: None, folder / "c.sock") as server:
        with pytest.raises(ControlError, match="status failed"):
            ControlClient(server.socket_path).status()
        assert ControlClient(server.socket_path).ping()


def test_many_clients_at_once(server, switch):
    errors: list[Exception] = []

    def talk(number: int) -> None:
        client = ControlClient(server.socket_path, timeout=30.0)
        try:
            for turn in range(20):
                assert client.ping()["pid"] == os.getpid()
                client.kill(f"client {number}", f"turn {turn}")
                client.status()
                client.rearm(f"client {number}", f"turn {turn}")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(switch.calls) == 8 * 20 * 2
    for number in range(8):
        mine = [call for call in switch.calls if call[1] == f"client {number}"]
        assert [call[2] for call in mine] == [f"turn {turn}" for turn in range(20) for _ in range(2)]


def test_too_many_connections_are_told(server, monkeypatch):
    monkeypatch.setattr(module, "MAX_CLIENTS", 3)
    held = []
    try:
        for _ in range(3):
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(str(server.socket_path))
            connection.sendall(b'{"command":"ping"}\n')
            connection.recv(100)
            held.append(connection)
        with pytest.raises(ControlError, match="too many connections"):
            ControlClient(server.socket_path).ping()
    finally:
        for connection in held:
            connection.close()
    assert eventually(lambda: _answers(server.socket_path))


def _answers(path: Path) -> bool:
    try:
        return bool(ControlClient(path).ping())
    except ControlError:
        return False


def test_a_client_of_another_user_is_refused(server, monkeypatch):
    monkeypatch.setattr(module, "_is_our_user", lambda connection: False)
    with pytest.raises(ControlError, match=r"only the user who runs this process|belongs to another user"):
        ControlClient(server.socket_path).ping()


# ---------------------------------------------------------------- the socket itself


def test_the_socket_is_for_this_user_only(folder, switch):
    path = folder / "deep" / "er" / "c.sock"
    previous = os.umask(0)
    try:
        with ControlServer(switch.status, switch.kill, switch.rearm, path):
            found = path.lstat()
            assert stat.S_ISSOCK(found.st_mode)
            assert stat.S_IMODE(found.st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            assert sorted(os.listdir(path.parent)) == ["c.sock", "c.sock.lock"]
            assert stat.S_IMODE((path.parent / "c.sock.lock").stat().st_mode) == 0o600
    finally:
        os.umask(previous)
    assert os.listdir(path.parent) == []


def test_start_and_stop_may_be_repeated(folder, switch):
    server = ControlServer(switch.status, switch.kill, switch.rearm, folder / "c.sock")
    server.stop()
    for _ in range(3):
        server.start()
        server.start()
        assert server.running
        assert ControlClient(server.socket_path).ping()
        server.stop()
        server.stop()
        assert not server.running
        assert not server.socket_path.exists()
    before = threading.active_count()
    with server:
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


def test_an_interrupt_while_starting_leaves_nothing_behind(folder, switch, monkeypatch):
    started = threading.Thread.start

    def interrupted(thread):
        started(thread)
        raise KeyboardInterrupt

    server = ControlServer(switch.status, switch.kill, switch.rearm, folder / "c.sock")
    before = threading.active_count()
    for start in (interrupted, lambda thread: (_ for _ in ()).throw(KeyboardInterrupt)):
        monkeypatch.setattr(threading.Thread, "start", start)
        with pytest.raises(KeyboardInterrupt):
            server.start()
        monkeypatch.undo()
        assert eventually(lambda: threading.active_count() == before)
        assert os.listdir(folder) == []
    with server:
        assert ControlClient(server.socket_path).ping()


def test_stop_from_within_a_callback(folder):
    server = ControlServer(dict, lambda *_: server.stop(), lambda *_: None, folder / "c.sock")
    server.start()
    assert ControlClient(server.socket_path).kill("a", "b") == {"killed": True}
    assert eventually(lambda: not server.running)


def test_a_stale_socket_is_replaced(folder, switch):
    path = folder / "c.sock"
    # A process that dies without cleaning up leaves both the socket and the lock file.
    code = (
        "import os, sys\n"
        "from tengri_fast.runtime import ControlServer\n"
        "ControlServer(dict, lambda *_: None, lambda *_: None, sys.argv[1]).start()\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=60)
    assert path.is_socket()
    assert (folder / "c.sock.lock").exists()
    with pytest.raises(ControlError, match="no running process listens"):
        ControlClient(path).ping()
    with ControlServer(switch.status, switch.kill, switch.rearm, path):
        assert ControlClient(path).ping()


def test_a_socket_in_use_is_refused(server, folder, switch):
    second = ControlServer(switch.status, switch.kill, switch.rearm, server.socket_path)
    with pytest.raises(ConfigurationError, match="is served by another process"):
        second.start()
    assert ControlClient(server.socket_path).ping()
    # Also when it is served by a program that knows nothing of our lock file.
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(folder / "other.sock"))
        stranger.listen()
        with pytest.raises(ConfigurationError, match="is served by another process"):
            ControlServer(switch.status, switch.kill, switch.rearm, folder / "other.sock").start()
    assert not (folder / "other.sock.lock").exists()


def test_of_many_that_start_at_once_one_wins(folder, switch):
    path = folder / "c.sock"
    servers = [ControlServer(switch.status, switch.kill, switch.rearm, path) for _ in range(8)]
    barrier = threading.Barrier(8)
    refused: list[str] = []

    def start(server: ControlServer) -> None:
        barrier.wait()
        try:
            server.start()
        except ConfigurationError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=start, args=(server,)) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(server.running for server in servers) == 1
    assert len(refused) == 7
    assert ControlClient(path).ping()
    for server in servers:
        server.stop()
    assert os.listdir(folder) == []


def test_another_kind_of_file_is_never_replaced(folder, switch):
    path = folder / "c.sock"
    path.write_text("precious")
    with pytest.raises(ConfigurationError, match="a file that is not a socket is there"):
        ControlServer(switch.status, switch.kill, switch.rearm, path).start()
    assert path.read_text() == "precious"
    assert os.listdir(folder) == ["c.sock"]


def test_a_socket_that_was_replaced_by_another_is_left_alone(folder, switch):
    path = folder / "c.sock"
    server = ControlServer(switch.status, switch.kill, switch.rearm, path)
    server.start()
    path.unlink()
    path.write_text("mine")
    server.stop()
    assert path.read_text() == "mine"


def test_a_path_that_is_too_long_is_told(folder, switch):
    path = folder / ("x" * 120)
    with pytest.raises(ConfigurationError, match=rf"at most {MAX_SOCKET_PATH} bytes, was \d+"):
        ControlServer(switch.status, switch.kill, switch.rearm, path).start()
    with pytest.raises(ConfigurationError, match="at most"):
        ControlClient(path).ping()
    longest = folder / ("y" * (MAX_SOCKET_PATH - len(str(folder)) - 1))
    with ControlServer(switch.status, switch.kill, switch.rearm, longest):
        assert ControlClient(longest).ping()


def test_folders_that_cannot_serve(folder, switch):
    (folder / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be made"):
        ControlServer(switch.status, switch.kill, switch.rearm, folder / "file" / "c.sock").start()
    (folder / "open").mkdir()
    (folder / "open").chmod(0o777)
    with pytest.raises(ConfigurationError, match="must not be writable by everyone"):
        ControlServer(switch.status, switch.kill, switch.rearm, folder / "open" / "c.sock").start()


def test_wrong_arguments():
    with pytest.raises(ConfigurationError, match="was given none"):
        ControlServer(dict, lambda *_: None, lambda *_: None)
    with pytest.raises(ConfigurationError, match="`poll_interval` must be > 0, was 0"):
        ControlServer(dict, lambda *_: None, lambda *_: None, "x", poll_interval=0)


def test_the_default_place(monkeypatch):
    monkeypatch.delenv("TENGRI_CONTROL_SOCKET", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert default_socket_path() == Path("/run/user/7/tengri/control.sock")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert default_socket_path() == Path(tempfile.gettempdir()) / f"tengri-{os.getuid()}" / "control.sock"
    monkeypatch.setenv("TENGRI_CONTROL_SOCKET", "/x/y")
    assert ControlClient().socket_path == Path("/x/y")


# ---------------------------------------------------------------- client against bad servers


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"rubbish\n", "cannot be understood"),
        (b"[]\n", "cannot be understood"),
        (b'{"ok":true}\n', "cannot be understood"),
        (b'{"ok":false,"error":"no"}\n', "^no$"),
        (b"", "closed the connection"),
        (None, r"did not answer within 0.2 s"),
    ],
)
def test_client_against_a_bad_server(folder, answer, text):
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(folder / "s"))
        stranger.listen()

        def serve() -> None:
            connection, _ = stranger.accept()
            with connection:
                connection.recv(1000)
                if answer is not None:
                    connection.sendall(answer)
                else:
                    connection.recv(1)  # until the client gives up

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(ControlError, match=text):
            ControlClient(folder / "s", timeout=0.2 if answer is None else 10.0).ping()
        thread.join()


# ---------------------------------------------------------------- kill file


def test_the_kill_file_kills_once_for_each_version(server, switch, folder):
    (folder / "STOP").write_text("")
    assert eventually(lambda: switch.killed)
    assert switch.calls == [("kill", "kill file", f"the kill file {folder / 'STOP'} exists")]
    with pytest.raises(ControlError, match=r"while the kill file .* exists: remove it first"):
        ControlClient(server.socket_path).rearm("a", "b")
    assert switch.killed
    assert eventually(lambda: ControlClient(server.socket_path).status()["control"]["kill_file_seen"])
    time.sleep(0.05)  # some more looks at the same file
    assert len(switch.calls) == 1
    os.utime(folder / "STOP", ns=(1, 1))
    assert eventually(lambda: len(switch.calls) == 2)
    (folder / "STOP").unlink()
    assert ControlClient(server.socket_path).rearm("a", "b") == {"killed": False}
    assert not switch.killed
    assert eventually(lambda: not ControlClient(server.socket_path).status()["control"]["kill_file_seen"])
    (folder / "STOP").write_text("")
    assert eventually(lambda: switch.killed)


def test_a_kill_file_that_is_there_kills_before_start_returns(folder, switch):
    (folder / "STOP").write_text("")
    with ControlServer(switch.status, switch.kill, switch.rearm, kill_file=folder / "STOP") as server:
        assert switch.killed
        assert server.socket_path is None
    assert [call[0] for call in switch.calls] == ["kill"]


@pytest.mark.parametrize("kind", ["fifo", "folder", "dangling link"])
def test_anything_in_its_place_counts_and_nothing_blocks(server, switch, folder, kind):
    if kind == "fifo":
        os.mkfifo(folder / "STOP")
    elif kind == "folder":
        (folder / "STOP").mkdir()
    else:
        (folder / "STOP").symlink_to("/nowhere/at/all")
    assert eventually(lambda: switch.killed)
    assert ControlClient(server.socket_path).ping()


def test_a_kill_file_that_cannot_be_looked_at_counts(folder, switch, monkeypatch):
    def denied(path, **_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module.os, "stat", denied)
    server = ControlServer(switch.status, switch.kill, switch.rearm, kill_file=folder / "STOP")
    server.start()
    monkeypatch.undo()
    server.stop()
    assert switch.calls[0][2] == f"the kill file {folder / 'STOP'} cannot be looked at (Permission denied)"


def test_a_kill_that_fails_is_tried_again_and_said_once(server, switch, folder, caplog):
    switch.fail = RuntimeError("busy")
    (folder / "STOP").write_text("")
    assert eventually(lambda: "busy" in caplog.text)
    time.sleep(0.05)
    assert caplog.text.count("busy") == 1
    switch.fail = None
    assert eventually(lambda: switch.killed)


def test_the_thread_survives_the_unexpected(server, switch, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("unexpected")

    monkeypatch.setattr(module, "_look_at", broken)
    assert eventually(lambda: "goes on" in caplog.text)
    monkeypatch.undo()
    assert ControlClient(server.socket_path).ping()


# ---------------------------------------------------------------- a run


def test_a_run_can_be_killed_seen_and_allowed_again(folder, switch):
    with RunControl(folder / "c.sock", about={"config": "demo.toml"}) as control:
        client = ControlClient(folder / "c.sock")
        assert client.status()["state"] == "starting"
        control.attach(switch)
        control.progress(5, 10, {"pnl": 1.5})
        status = client.status()
        assert status["state"] == "running"
        assert status["config"] == "demo.toml"
        assert status["killed"] is False
        assert status["progress"] == {"done": 5, "total": 10, "pnl": 1.5}
        assert status["counters"] == {"submitted": 3, "denied": {"MAX_POSITION": 1}}
        client.kill("alice", "drill")
        assert switch.killed
        assert client.status()["killed"] is True
        client.rearm("alice", "over")
        assert not switch.killed
        control.detach()
        assert client.status()["state"] == "ended"
        for command in (client.kill, client.rearm):
            with pytest.raises(ControlError, match="the run has ended"):
                command("a", "b")
    assert not (folder / "c.sock").exists()


def test_a_kill_before_the_gate_exists_is_kept(folder, switch):
    (folder / "STOP").write_text("")
    control = RunControl(kill_file=folder / "STOP")
    control.start()
    assert control.status()["killed"] is True
    control.attach(switch)
    assert switch.calls == [("kill", "kill file", f"the kill file {folder / 'STOP'} exists")]
    control.stop()
    early = RunControl()
    assert early.kill("a", "b") == {"killed": True, "kills": {"a": "b"}}
    assert early.kill("c", "d") == {"killed": True, "kills": {"a": "b", "c": "d"}}
    with pytest.raises(ControlError, match=r"must be a kill switch that is on \(a, c\), was 'x'"):
        early.rearm("x", "y")
    assert early.rearm("a", "b") == {"killed": True, "kills": {"c": "d"}}
    assert early.status()["kills"] == {"c": "d"}
    assert early.rearm("c", "b") == {"killed": False, "kills": {}}
    other = Switch()
    early.attach(other)
    assert other.calls == []
    assert not early.serving


def test_counters_may_be_a_method(switch):
    switch.counters = lambda: {"denied": 2}
    control = RunControl()
    control.attach(switch)
    assert control.status()["counters"] == {"denied": 2}


def test_a_busy_run_is_reached_through_its_progress(folder, switch):
    """A loop that holds the interpreter and only reports progress is still killed."""
    interval = sys.getswitchinterval()
    with RunControl(folder / "c.sock") as control:
        control.attach(switch)
        done = []
        thread = threading.Thread(target=lambda: done.append(ControlClient(folder / "c.sock", 30.0).kill("a", "b")))
        sys.setswitchinterval(100.0)  # as compiled code: nobody else runs unless we let go
        try:
            thread.start()
            steps = 0
            while not switch.killed and steps < 100_000:
                control.progress(steps, 0)
                steps += 1
        finally:
            sys.setswitchinterval(interval)
        thread.join()
    assert switch.killed
    assert done == [{"killed": True, "kills": {"a": "b"}}]
