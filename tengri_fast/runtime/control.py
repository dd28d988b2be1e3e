"""The way in to a running process: ask for its status, stop its trading, allow it again.

Two doors lead to the same switch: a Unix socket that takes one JSON object per line, and a *kill file*, whose mere
existence stops trading. Both are served by one daemon thread.

Protocol. A request is ``{"command": ..., "name": ..., "reason": ...}`` and a newline, at most 64 KiB. ``ping``,
``status`` and ``portfolio`` need nothing else; ``kill`` and ``rearm`` need who (`name`) and why (`reason`). The answer
is one line: ``{"ok": true, "result": ...}`` or ``{"ok": false, "error": "a sentence"}``, with the request's ``id`` if
it had one.

In a run each name is a switch of its own: what "alice" stopped stays stopped until "alice" is rearmed, whoever else
stops or rearms meanwhile. The switch of the kill file is called "kill file".

Only the user who runs the process (and root) may connect: the socket has mode 0600, a folder that is made for it has
mode 0700, and on Linux the peer's user is checked as well.

Callbacks run on the control thread, one at a time, while the process trades on another: they must be thread safe and
quick. Setting a flag that the trading thread reads is enough for `kill`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import logging
import os
import selectors
import socket
import stat
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from tengri_fast.errors import ConfigurationError, NeuralIntegrationError

__all__ = [
    "ControlClient",
    "ControlError",
    "ControlServer",
    "Gate",
    "RunControl",
    "default_socket_path",
]

log = logging.getLogger("tengri_fast.control")

MAX_REQUEST_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 4 * 1024 * 1024
MAX_CLIENTS = 32
IDLE_SECONDS = 30.0
MAX_DISCARDED_BYTES = 16 * 1024 * 1024
TOO_LONG = f"a request must be at most {MAX_REQUEST_BYTES} bytes"
COMMANDS = ("ping", "status", "portfolio", "kill", "rearm")
# sun_path of struct sockaddr_un holds 108 bytes on Linux and 104 on the BSDs and macOS, one of them the final NUL.
MAX_SOCKET_PATH = 107 if sys.platform.startswith("linux") else 103

Switch = Callable[[str, str], object]


class ControlError(NeuralIntegrationError):
    """A running process could not be reached, or refused a command."""


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    command: str
    name: str | None = None
    reason: str | None = None
    id: int | str | None = None


def default_socket_path() -> Path:
    """Where a process listens, and a client looks, when no path is given.

    ``$TENGRI_CONTROL_SOCKET``, else ``$XDG_RUNTIME_DIR/tengri/control.sock``, else a folder of this user alone in the
    place for temporary files.
    """
    if named := os.environ.get("TENGRI_CONTROL_SOCKET"):
        return Path(named)
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / "tengri" / "control.sock"
    return Path(tempfile.gettempdir()) / f"tengri-{os.getuid()}" / "control.sock"


class ControlServer:
    """Serves a control socket, a kill file, or both, on one daemon thread.

    Parameters
    ----------
    status : callable
        Returns a mapping that can be written as JSON.
    kill, rearm : callable
        Called with name and reason. What they return, if a mapping, is part of the answer; what they raise is told to
        the client.
    socket_path : path-like, optional
        At most 107 bytes. A stale socket there is replaced; one that is served, or another kind of file, is refused.
    kill_file : path-like, optional
        Looked at `poll_interval` seconds apart by its modification time. If it exists, `kill` is called once for each
        version of it, first of all before `start` returns, and `rearm` is refused until it is gone. A file that cannot
        be looked at counts as existing.
    poll_interval : float, default 0.2
        Seconds.
    portfolio : callable, optional
        Returns the document of :func:`tengri_fast.risk.recorded.portfolio_document`; refused when there is none.

    Raises
    ------
    ConfigurationError
        By `start`, if the socket cannot be made; the message says why.
    """

    def __init__(
        self,
        status: Callable[[], Mapping[str, Any]],
        kill: Switch,
        rearm: Switch,
        socket_path: str | os.PathLike[str] | None = None,
        kill_file: str | os.PathLike[str] | None = None,
        *,
        poll_interval: float = 0.2,
        portfolio: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        if socket_path is None and kill_file is None:
            raise ConfigurationError(
                "a control server must have a `socket_path`, a `kill_file`, or both, was given none"
            )
        if not poll_interval > 0:
            raise ConfigurationError(f"`poll_interval` must be > 0, was {poll_interval}")
        self._status, self._kill, self._rearm = status, kill, rearm
        self._portfolio = portfolio
        self.socket_path = None if socket_path is None else Path(socket_path)
        self.kill_file = None if kill_file is None else Path(kill_file)
        self.poll_interval = poll_interval
        self._life = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake: socket.socket | None = None
        self._kill_seen: object = None
        self._kill_failed: object = None
        self._started_at = 0.0

    def start(self) -> None:
        """Begin to listen; does nothing when running."""
        with self._life:
            if self._thread is not None and self._thread.is_alive():
                return
            listener = None if self.socket_path is None else _Listener(self.socket_path)
            try:
                self._kill_seen = self._kill_failed = None
                self._check_kill_file()
                self._wake, woken = socket.socketpair()
                self._started_at = time.monotonic()
                loop = _Loop(self, listener, woken)
                self._thread = threading.Thread(target=loop.run, name="tengri-control", daemon=True)
                self._thread.start()
            except BaseException:
                # Ctrl-C may come while the thread starts, which then finds its other end closed and leaves.
                if self._wake is not None:
                    self._wake.close()
                    self._wake = None
                if listener is not None:
                    listener.close()
                raise

    def stop(self) -> None:
        """End the thread and remove the socket; does nothing when not running."""
        with self._life:
            thread, wake = self._thread, self._wake
            if thread is None or wake is None:
                return
            wake.close()  # the other end becomes readable, which ends the loop
            self._wake = None
            if thread is threading.current_thread():
                return
            thread.join(timeout=5.0)
            if thread.is_alive():
                log.warning("the control thread is still busy with a callback; it ends when that returns")

    def __enter__(self) -> ControlServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether the thread is alive."""
        thread = self._thread
        return thread is not None and thread.is_alive()

    # ------------------------------------------------------------ commands

    def answer(self, line: bytes) -> dict[str, Any]:
        """The answer to one request; whatever comes in, one goes out."""
        if len(line) > MAX_REQUEST_BYTES:
            return {"ok": False, "error": TOO_LONG}
        try:
            request = msgspec.json.decode(line, type=_Request)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return {"ok": False, "error": f"the request must be a JSON object with a `command`: {error}"}
        tag = {} if request.id is None else {"id": request.id}
        try:
            return {"ok": True, "result": self._run(request), **tag}
        except NeuralIntegrationError as error:
            return {"ok": False, "error": str(error), **tag}
        except Exception as error:
            log.exception("control command %s failed", request.command)
            return {"ok": False, "error": f"{request.command} failed: {type(error).__name__}: {error}", **tag}

    def _run(self, request: _Request) -> dict[str, Any]:
        match request.command:
            case "ping":
                return {"pid": os.getpid()}
            case "status":
                return {**_plain(self._status()), "control": self._own_status()}
            case "portfolio":
                if self._portfolio is None:
                    raise ControlError("this process hands out no portfolio")
                return dict(self._portfolio())
            case "kill":
                name, reason = _who_and_why(request)
                return _mapping(self._kill(name, reason), {"killed": True})
            case "rearm":
                name, reason = _who_and_why(request)
                found, what = _look_at(self.kill_file) if self.kill_file is not None else (None, "")
                if found is not None:
                    raise ControlError(f"trading cannot be allowed again while the kill file {what}: remove it first")
                return _mapping(self._rearm(name, reason), {"killed": False})
        raise ControlError(f"`command` must be one of {', '.join(COMMANDS)}, was {request.command[:80]!r}")

    def _own_status(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "uptime_s": round(time.monotonic() - self._started_at, 3),
            "socket": None if self.socket_path is None else str(self.socket_path),
            "kill_file": None if self.kill_file is None else str(self.kill_file),
            "kill_file_seen": self._kill_seen is not None,
        }

    def _check_kill_file(self) -> None:
        if self.kill_file is None:
            return
        found, what = _look_at(self.kill_file)
        if found is None or found == self._kill_seen:
            self._kill_seen = found
            return
        try:
            self._kill("kill file", f"the kill file {what}")
        except Exception as error:
            # Not marked as seen, so every look tries again; said once for each version of the file.
            if found != self._kill_failed:
                log.error("the kill file %s, but trading could not be stopped, will try again: %s", what, error)
            self._kill_failed = found
            return
        self._kill_seen = found


class _Loop:
    """What the control thread does: wait for connections, requests, and the time to look at the kill file."""

    def __init__(self, server: ControlServer, listener: _Listener | None, woken: socket.socket) -> None:
        self.server, self.listener, self.woken = server, listener, woken
        self.selector = selectors.DefaultSelector()
        self.clients: set[_Client] = set()
        self.stopping = False

    def run(self) -> None:
        try:
            self.selector.register(self.woken, selectors.EVENT_READ, None)
            if self.listener is not None and self.listener.open:
                self.selector.register(self.listener.socket, selectors.EVENT_READ, self.listener)
            next_look = time.monotonic() + self.server.poll_interval
            while not self.stopping:
                try:
                    next_look = self.turn(next_look)
                except Exception:
                    # Losing the control thread would mean a process that cannot be stopped.
                    log.exception("the control thread met an unexpected error and goes on")
                    time.sleep(0.05)
        finally:
            for client in list(self.clients):
                self.drop(client)
            if self.listener is not None:
                self.listener.close()
            self.woken.close()
            self.selector.close()

    def turn(self, next_look: float) -> float:
        for key, events in self.selector.select(max(0.0, next_look - time.monotonic())):
            if isinstance(key.data, _Client):
                self.serve(key.data, events)
            elif isinstance(key.data, _Listener):
                self.accept(key.data)
            else:
                self.stopping = True
        now = time.monotonic()
        if now < next_look:
            return next_look
        self.server._check_kill_file()
        for client in [client for client in self.clients if now - client.active > IDLE_SECONDS]:
            self.drop(client)
        return now + self.server.poll_interval

    def accept(self, listener: _Listener) -> None:
        try:
            connection, _ = listener.socket.accept()
        except OSError as error:
            log.warning("control socket: a connection could not be accepted: %s", error)
            if error.errno in (errno.EMFILE, errno.ENFILE):
                time.sleep(0.05)  # out of descriptors: the pending connection would wake us again at once
            return
        connection.setblocking(False)
        client = _Client(connection)
        if not _is_our_user(connection):
            client.refuse("only the user who runs this process may control it")
        elif len(self.clients) >= MAX_CLIENTS:
            client.refuse(f"too many connections: at most {MAX_CLIENTS} at a time")
        self.clients.add(client)
        self.selector.register(connection, client.wanted, client)

    def drop(self, client: _Client) -> None:
        self.clients.discard(client)
        self.selector.unregister(client.socket)
        client.socket.close()

    def serve(self, client: _Client, events: int) -> None:
        try:
            if events & selectors.EVENT_READ:
                for line in client.read():
                    client.send(self.server.answer(line))
            done = client.write()
        except OSError:
            done = True  # the other side went away
        if done:
            self.drop(client)
        else:
            self.selector.modify(client.socket, client.wanted, client)


class _Client:
    """One connection: what has come in and is not a whole line yet, what has still to go out."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.active = time.monotonic()
        self.incoming = bytearray()
        self.outgoing = bytearray()
        self.discarded = 0
        self.closing = False

    @property
    def wanted(self) -> int:
        # Nothing more is read while an answer waits to be taken, so a client that never reads cannot fill our memory.
        return selectors.EVENT_WRITE if self.outgoing or self.closing else selectors.EVENT_READ

    def read(self) -> list[bytes]:
        """Whole lines that have arrived.

        A line that is too long is answered as soon as that is known, and the rest of it is thrown away: closing at once
        could take the answer away from a client that is still sending.
        """
        try:
            data = self.socket.recv(MAX_REQUEST_BYTES)
        except BlockingIOError:
            return []
        self.active = time.monotonic()
        if not data:
            self.closing = True
            return []
        if self.discarded:
            _, newline, data = data.partition(b"\n")
            if not newline:
                self.discarded += MAX_REQUEST_BYTES
                self.closing = self.discarded > MAX_DISCARDED_BYTES
                return []
            self.discarded = 0
        self.incoming += data
        *lines, rest = bytes(self.incoming).split(b"\n")
        self.incoming = bytearray(rest)
        if len(rest) > MAX_REQUEST_BYTES:
            self.send({"ok": False, "error": TOO_LONG})
            self.incoming.clear()
            self.discarded = 1
        return [line for line in lines if line.strip()]

    def send(self, answer: Mapping[str, Any]) -> None:
        try:
            data = msgspec.json.encode(answer, enc_hook=_as_json)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            data = msgspec.json.encode({"ok": False, "error": f"the answer cannot be written: {type(error).__name__}"})
        if len(data) > MAX_ANSWER_BYTES:
            data = msgspec.json.encode({"ok": False, "error": f"the answer is larger than {MAX_ANSWER_BYTES} bytes"})
        self.outgoing += data + b"\n"

    def refuse(self, error: str) -> None:
        self.send({"ok": False, "error": error})
        self.closing = True

    def write(self) -> bool:
        """Send what the other side takes; True when the connection is done."""
        while self.outgoing:
            try:
                sent = self.socket.send(self.outgoing)
            except BlockingIOError:
                return False
            self.active = time.monotonic()
            del self.outgoing[:sent]
        return self.closing


class _Listener:
    """A listening socket at a path that it owns for as long as it lives.

    A lock file beside it decides between two processes that start at once. The socket is bound under a name of its own,
    given its mode, and only then moved into place, so it is never reachable with a wider mode and a stale one vanishes
    in the same step.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.open = True
        self.closing = threading.Lock()
        _check_length(self.path)
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_folder(self.path.parent)
            self.lock_path = self.path.with_name(self.path.name + ".lock")
            self.lock = _lock(self.lock_path, self.path)
        except OSError as error:
            raise ConfigurationError(f"the control socket {self.path} cannot be made: {error.strerror}") from None
        try:
            self.socket = self._bind()
        except BaseException:
            self._unlock()
            raise

    def _bind(self) -> socket.socket:
        _refuse_if_taken(self.path)
        temporary = self.path.with_name(_temporary_name())
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            temporary.unlink(missing_ok=True)
            listener.bind(str(temporary))
            # Nobody can connect before listen(), so there is no moment at which the mode is wider.
            os.chmod(temporary, 0o600)
            listener.listen(MAX_CLIENTS)
            listener.setblocking(False)
            self.identity = _identity(os.lstat(temporary))
            os.rename(temporary, self.path)
        except OSError as error:
            listener.close()
            temporary.unlink(missing_ok=True)
            raise ConfigurationError(f"the control socket {self.path} cannot be made: {error.strerror}") from None
        return listener

    def close(self) -> None:
        """Remove the socket and the lock; does nothing the second time."""
        with self.closing:
            if not self.open:
                return
            self.open = False
        self.socket.close()
        try:
            if _identity(os.lstat(self.path)) == self.identity:
                os.unlink(self.path)
        except FileNotFoundError:
            log.info("control socket %s was already gone", self.path)
        except OSError as error:
            log.warning("control socket %s could not be removed: %s", self.path, error)
        self._unlock()

    def _unlock(self) -> None:
        # Removed while it is still held: whoever waits for the old file sees that its name is gone and makes a new one.
        self.lock_path.unlink(missing_ok=True)
        os.close(self.lock)


_count = itertools.count()


def _temporary_name() -> str:
    return f".{os.getpid():x}.{next(_count):x}"


def _check_length(path: Path) -> None:
    # The name under which the socket is first bound may be longer than a very short final one.
    length = max(len(os.fsencode(path)), len(os.fsencode(path.with_name(_temporary_name()))))
    if length > MAX_SOCKET_PATH:
        raise ConfigurationError(
            f"the path of a control socket must be at most {MAX_SOCKET_PATH} bytes, was {length}: {path}"
        )


def _check_folder(folder: Path) -> None:
    """Refuse a folder in which another user could put their own socket in our place."""
    found = os.stat(folder)
    if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        raise ConfigurationError(f"the folder of a control socket must not be writable by everyone: {folder}")
    if found.st_uid not in (os.getuid(), 0) and os.getuid() != 0:
        raise ConfigurationError(f"the folder of a control socket must belong to this user: {folder}")


def _lock(lock_path: Path, path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        descriptor = os.open(lock_path, flags, 0o600)
        keep = False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The last owner may have removed the file between our open and our lock; then its name is not ours.
            keep = _identity(os.fstat(descriptor)) == _identity(os.stat(lock_path))
            if keep:
                return descriptor
        except BlockingIOError:
            raise _taken(path) from None
        except FileNotFoundError:
            continue
        finally:
            if not keep:
                os.close(descriptor)


def _taken(path: Path) -> ConfigurationError:
    return ConfigurationError(f"the control socket {path} is served by another process; give this one its own path")


def _refuse_if_taken(path: Path) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigurationError(f"the control socket {path} cannot be made: a file that is not a socket is there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return  # nobody listens: a process that died left it behind
        except OSError as error:
            raise ConfigurationError(f"the control socket {path} cannot be replaced: {error}") from None
    raise _taken(path)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _is_our_user(connection: socket.socket) -> bool:
    """Whether the other end runs as this user or as root."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True  # the mode of the socket is the check there
    try:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    except OSError:
        return False
    _, user, _ = struct.unpack("3i", credentials)
    return user in (os.getuid(), 0)


def _look_at(path: Path) -> tuple[object, str]:
    """What identifies the present version of the kill file (None: it is not there), and a phrase about it.

    Only its directory entry is read, so nothing that was put in its place (a pipe, a device) can hold us up.
    """
    try:
        found = os.stat(path, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None, ""
    except OSError as error:
        # Whether it exists cannot be told: the safe answer is yes.
        return error.errno, f"{path} cannot be looked at ({error.strerror})"
    return (found.st_dev, found.st_ino, found.st_mtime_ns), f"{path} exists"


def _who_and_why(request: _Request) -> tuple[str, str]:
    found = []
    for field, limit in (("name", 200), ("reason", 2000)):
        text = (getattr(request, field) or "").strip()
        if not text:
            raise ControlError(f"`{field}` must be given for {request.command}: who does it and why is written down")
        if len(text) > limit or not text.isprintable():
            raise ControlError(f"`{field}` must be at most {limit} printable characters on one line")
        found.append(text)
    return found[0], found[1]


def _mapping(value: object, default: dict[str, Any]) -> dict[str, Any]:
    return _plain(value) if isinstance(value, Mapping) else default


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """Checked here, so that a value that JSON cannot hold is an answer and not the end of the connection."""
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(dict(value), enc_hook=_as_json))
    return decoded


def _as_json(value: object) -> object:
    """NumPy scalars and arrays as numbers and lists, anything else as its text."""
    for method in ("tolist", "item"):
        if hasattr(value, method):
            return getattr(value, method)()
    return str(value)


class ControlClient:
    """Talks to a running process. One connection per call; any thread may use it.

    Parameters
    ----------
    socket_path : path-like, optional
        By default `default_socket_path()`.
    timeout : float, default 5.0
        Seconds for the whole of one call.
    """

    def __init__(self, socket_path: str | os.PathLike[str] | None = None, timeout: float = 5.0) -> None:
        self.socket_path = default_socket_path() if socket_path is None else Path(socket_path)
        self.timeout = timeout

    def ping(self) -> dict[str, Any]:
        """Whether the process is there; gives its process id."""
        return self.request("ping")

    def status(self) -> dict[str, Any]:
        """What the process says about itself."""
        return self.request("status")

    def portfolio(self) -> dict[str, Any]:
        """Positions and the use of limits, as :func:`tengri_fast.risk.recorded.decode_portfolio` reads them."""
        return self.request("portfolio")

    def kill(self, name: str, reason: str) -> dict[str, Any]:
        """Stop all trading except what reduces positions."""
        return self.request("kill", name=name, reason=reason)

    def rearm(self, name: str, reason: str) -> dict[str, Any]:
        """Allow trading again."""
        return self.request("rearm", name=name, reason=reason)

    def request(self, command: str, **fields: str) -> dict[str, Any]:
        """Send one request and return the ``result`` of its answer.

        Raises
        ------
        ControlError
            If nobody listens, the answer does not come in time, or the process refuses.
        """
        deadline = time.monotonic() + self.timeout
        _check_length(self.socket_path.absolute())
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            try:
                connection.settimeout(self.timeout)
                connection.connect(str(self.socket_path))
                if os.getuid() != 0 and not _is_our_user(connection):
                    raise ControlError(f"the process behind {self.socket_path} belongs to another user")
                with contextlib.suppress(BrokenPipeError):
                    # One that refuses us may have answered and closed before we spoke; its answer is still there.
                    connection.sendall(msgspec.json.encode({"command": command, **fields}) + b"\n")
                answer = self._receive(connection, deadline)
            except TimeoutError:
                raise ControlError(
                    f"the process behind {self.socket_path} did not answer within {self.timeout:g} s"
                ) from None
            except (FileNotFoundError, ConnectionRefusedError):
                raise ControlError(
                    f"no running process listens at {self.socket_path} (is [control] socket set in its configuration?)"
                ) from None
            except OSError as error:
                raise ControlError(f"the control socket {self.socket_path} cannot be used: {error.strerror}") from None
        try:
            decoded = msgspec.json.decode(answer)
            if decoded["ok"] is True:
                return dict(decoded["result"])
            refusal = str(decoded["error"])
        except (ValueError, KeyError, TypeError):
            raise ControlError(f"the answer from {self.socket_path} cannot be understood") from None
        raise ControlError(refusal)

    def _receive(self, connection: socket.socket, deadline: float) -> bytes:
        received = bytearray()
        while b"\n" not in received:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            connection.settimeout(left)
            data = connection.recv(65536)
            if not data:
                raise ConnectionResetError(errno.ECONNRESET, "the process closed the connection")
            received += data
            if len(received) > MAX_ANSWER_BYTES + 1:
                raise ControlError(f"the answer from {self.socket_path} is too long")
        return bytes(received)


class Gate(Protocol):
    """What a risk gate offers to whoever stops it from another thread."""

    def kill(self, name: str, reason: str) -> object:
        """Turn a named switch on: every order that does not reduce a position is denied from now on."""

    def rearm(self, name: str, reason: str) -> object:
        """Turn a named switch off; raises when it is not on."""

    @property
    def killed(self) -> bool:
        """Whether any switch is on."""

    @property
    def kills(self) -> Mapping[str, str]:
        """The switches that are on: name and reason."""

    @property
    def counters(self) -> Any:
        """Counts of what the gate has seen and denied, by name."""


class RunControl:
    """Joins a run to the outside: its gate can be killed and its progress seen while it runs.

    Made by whoever starts the run and handed to it; the run calls `attach` when its gate exists. A kill that comes
    earlier is kept and carried out then, so a kill file that is there from the start means that nothing is traded.

    Parameters
    ----------
    socket_path, kill_file : path-like, optional
        As for `ControlServer`. With neither, nothing is served and the object only keeps progress.
    about : mapping, optional
        Fixed facts for the status, such as the configuration's file and hash.
    """

    def __init__(
        self,
        socket_path: str | os.PathLike[str] | None = None,
        kill_file: str | os.PathLike[str] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self._about = dict(about or {})
        self._lock = threading.Lock()
        self._gate: Gate | None = None
        self._waiting: dict[str, str] = {}
        self._ended = False
        self._progress: dict[str, Any] = {"done": 0, "total": 0}
        self._server: ControlServer | None = None
        if socket_path is not None or kill_file is not None:
            self._server = ControlServer(
                self.status, self.kill, self.rearm, socket_path, kill_file, portfolio=self.portfolio
            )

    @property
    def serving(self) -> bool:
        """Whether a socket or a kill file is watched."""
        return self._server is not None and self._server.running

    def start(self) -> None:
        """Begin to serve, if there is anything to serve; does nothing when running."""
        if self._server is not None:
            self._server.start()

    def stop(self) -> None:
        """End; commands that come later find nobody."""
        if self._server is not None:
            self._server.stop()

    def __enter__(self) -> RunControl:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def attach(self, gate: Gate) -> None:
        """Make `gate` the one that commands go to. A kill that is waiting is carried out before this returns."""
        with self._lock:
            self._gate = gate
            self._ended = False
            for name, reason in self._waiting.items():
                gate.kill(name, reason)
            self._waiting = {}

    def detach(self) -> None:
        """The run is over: its gate takes no more commands."""
        with self._lock:
            self._gate = None
            self._ended = True

    def progress(self, done: int, total: int, live: Mapping[str, Any] | None = None) -> None:
        """Note how far the run is, for `status`, and let the control thread run.

        A simulation may stay in compiled code for long and never let go of the interpreter by itself; sleeping for no
        time does.
        """
        self._progress = {"done": int(done), "total": int(total), **(live or {})}
        if self._server is not None:
            time.sleep(0)

    def status(self) -> dict[str, Any]:
        """What `tengri status` shows."""
        with self._lock:
            gate, waiting, ended = self._gate, dict(self._waiting), self._ended
        state: dict[str, Any] = dict(self._about)
        state["state"] = "ended" if ended else "starting" if gate is None else "running"
        state["killed"] = bool(waiting) if gate is None else bool(gate.killed)
        state["kills"] = waiting if gate is None else dict(gate.kills)
        state["progress"] = dict(self._progress)
        if gate is not None:
            counters = gate.counters
            state["counters"] = counters() if callable(counters) else counters
        return state

    def portfolio(self) -> dict[str, Any]:
        """What ``tengri risk report --live`` shows: positions and the use of limits, now.

        Raises
        ------
        ControlError
            When the run has no gate, or one that knows no portfolio.
        """
        from tengri_fast.risk.recorded import portfolio_document

        with self._lock:
            gate = self._gate
        held = getattr(gate, "portfolio", None)
        if held is None:
            raise ControlError("there is no portfolio: the run has not begun, has ended, or has no risk gate")
        known: Any = gate if hasattr(gate, "utilisation") else None
        source = f"run, {self._progress['done']:,} of {self._progress['total']:,}"
        return portfolio_document(held, known, source=source)

    def kill(self, name: str, reason: str) -> dict[str, Any]:
        """Stop the run's trading under a name; from any thread."""
        with self._lock:
            if self._ended:
                raise ControlError("the run has ended: there is nothing left to stop")
            if self._gate is None:
                self._waiting.setdefault(name, reason)
            else:
                self._gate.kill(name, reason)
            return self._switches()

    def rearm(self, name: str, reason: str) -> dict[str, Any]:
        """End what was stopped under a name; from any thread. Trading goes on when no other name is left."""
        with self._lock:
            if self._ended:
                raise ControlError("the run has ended: there is nothing left to allow")
            if self._gate is not None:
                self._gate.rearm(name, reason)
            elif self._waiting.pop(name, None) is None:
                on = ", ".join(sorted(self._waiting)) or "none"
                raise ControlError(f"`name` must be a kill switch that is on ({on}), was {name!r}")
            return self._switches()

    def _switches(self) -> dict[str, Any]:
        kills = self._waiting if self._gate is None else self._gate.kills
        return {"killed": bool(kills), "kills": dict(kills)}
