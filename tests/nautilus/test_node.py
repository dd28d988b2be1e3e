"""``tengri node``: a dry run builds the node and opens no connection, whoever would open it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("nautilus_trader", reason="the adapter needs nautilus_trader==1.231.0")

from support import REPOSITORY

# NautilusTrader connects from Rust, past Python's sockets: so the calls of the C library are what is watched.
GUARD = """
#define _GNU_SOURCE
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
static void refuse(const char *what) {
    fprintf(stderr, "NETWORK CALL: %s\\n", what);
    fflush(stderr);
    _exit(97);
}
int connect(int fd, const struct sockaddr *to, socklen_t length) {
    (void)fd; (void)length;
    if (to->sa_family != AF_UNIX) refuse("connect");
    return -1;
}
int getaddrinfo(const char *n, const char *s, const struct addrinfo *h, struct addrinfo **r) {
    (void)n; (void)s; (void)h; (void)r;
    refuse("getaddrinfo");
    return EAI_FAIL;
}
ssize_t sendto(int fd, const void *b, size_t n, int f, const struct sockaddr *to, socklen_t l) {
    (void)fd; (void)b; (void)f; (void)l;
    if (to != NULL && to->sa_family != AF_UNIX) refuse("sendto");
    return (ssize_t)n;
}
"""

SECRET = "s3cr3t-value-that-is-never-shown"
PROBES = {
    "python": "import socket; socket.create_connection(('127.0.0.1', 9), 1)",
    "rust": (
        "import asyncio; from nautilus_trader.core.nautilus_pyo3 import HttpClient\n"
        "async def go(): await HttpClient().get('http://127.0.0.1:9/')\n"
        "asyncio.run(go())"
    ),
}


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("watching the C library's calls needs Linux and a C compiler")
    folder = tmp_path_factory.mktemp("guard")
    source, library = folder / "guard.c", folder / "guard.so"
    source.write_text(GUARD)
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source)], check=True)
    return library


def run(guard: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    names = ("DATABENTO_API_KEY", "TARDIS_API_KEY", "TARDIS_MACHINE_WS_URL", "BINANCE_API_KEY", "BINANCE_API_SECRET")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    return subprocess.run(
        [sys.executable, *arguments],
        env={**clean, "LD_PRELOAD": str(guard), "COLUMNS": "200", "PYTHONPATH": str(REPOSITORY), **environ},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("language", sorted(PROBES))
def test_the_guard_sees_connections_of_both_languages(guard: Path, language: str) -> None:
    done = run(guard, "-c", PROBES[language])
    assert done.returncode == 97, done.stdout + done.stderr
    assert "NETWORK CALL" in done.stderr


def test_a_dry_run_with_every_key_builds_all_clients_and_connects_to_nothing(guard: Path) -> None:
    done = run(
        guard, "-m", "tengri_fast.cli", "node", "examples/node_sources.toml", "--dry-run",
        DATABENTO_API_KEY="db-" + "0" * 29, TARDIS_API_KEY=SECRET, TARDIS_MACHINE_WS_URL="ws://localhost:8001",
        BINANCE_API_KEY=SECRET, BINANCE_API_SECRET=SECRET,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert SECRET not in done.stdout + done.stderr
    for text in (
        "BINANCE_SPOT", "DATABENTO", "TARDIS", "https://fapi.binance.com", "ws://localhost:8001",
        "BTCUSDT-PERP.BINANCE",
        "DATABENTO_API_KEY set", "TARDIS_API_KEY set", "sandbox BINANCE, MARGIN, 100000 USDT", "max_order_notional",
        "lstm_btcusdt", "quotes, trades from BINANCE", "30d", "Dry run: nothing was connected.",
    ):  # fmt: skip
        assert text in done.stdout, text
    assert "not built" not in done.stdout


def test_missing_keys_are_named_and_stop_a_real_run_before_anything_connects(guard: Path) -> None:
    dry = run(guard, "-m", "tengri_fast.cli", "node", "examples/node_sources.toml", "--dry-run")
    assert dry.returncode == 0, dry.stdout + dry.stderr
    assert "DATABENTO_API_KEY missing" in dry.stdout
    assert "not built: a key is missing" in dry.stdout
    assert "Without DATABENTO_API_KEY, TARDIS_API_KEY, TARDIS_MACHINE_WS_URL it does not start." in dry.stdout
    real = run(guard, "-m", "tengri_fast.cli", "node", "examples/node_sources.toml")
    assert real.returncode == 2
    assert "the environment must have DATABENTO_API_KEY, TARDIS_API_KEY, TARDIS_MACHINE_WS_URL" in real.stderr


def test_a_real_run_does_connect(guard: Path) -> None:
    """The other side of the dry run: with nothing missing, running opens a connection, which the guard stops."""
    done = run(guard, "-m", "tengri_fast.cli", "node", "examples/node_binance.toml")
    assert done.returncode == 97, done.stdout[-2000:] + done.stderr[-2000:]
