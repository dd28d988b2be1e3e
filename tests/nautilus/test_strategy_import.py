"""What importing the room does, and how it refuses."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("nautilus_trader", reason="nautilus_trader is not installed")

from support import REPOSITORY


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_core_does_not_import_nautilus() -> None:
    done = python("import sys, tengri_fast; print('nautilus_trader' in sys.modules)")
    assert done.stdout.strip() == "False", done.stderr


def test_another_release_is_refused_before_anything_is_loaded() -> None:
    done = python(
        "import sys\n"
        "from importlib import metadata\n"
        "real = metadata.version\n"
        "metadata.version = lambda name: '1.230.0' if name == 'nautilus_trader' else real(name)\n"
        "try:\n"
        "    import tengri_fast.nautilus\n"
        "except ImportError as error:\n"
        "    print(type(error).__name__, '|', error, '|', 'nautilus_trader' in sys.modules)\n"
    )
    assert done.stdout.startswith("UnsupportedNautilusError | `nautilus_trader` must be 1.231.0"), done.stderr
    assert "was 1.230.0" in done.stdout
    assert done.stdout.strip().endswith("| False")


def test_an_absent_nautilus_is_one_sentence_that_names_the_extra() -> None:
    done = python(
        "from importlib import metadata\n"
        "def absent(name): raise metadata.PackageNotFoundError(name)\n"
        "metadata.version = absent\n"
        "try:\n"
        "    import tengri_fast.nautilus\n"
        "except ImportError as error:\n"
        "    print(type(error).__name__, '|', error)\n"
    )
    assert done.stdout.startswith("MissingExtraError |"), done.stderr
    assert "pip install 'tengri_fast[nautilus]'" in done.stdout


def test_names_are_found_when_asked_for() -> None:
    import tengri_fast.nautilus as room

    assert "TengriNeuralStrategy" in dir(room)
    assert room.TengriNeuralStrategy.__module__ == "tengri_fast.nautilus.strategy"
    with pytest.raises(AttributeError, match="Tengris"):
        _ = room.Tengris


def test_importing_the_room_installs_the_zero_copy_layouts() -> None:
    import tengri_fast.nautilus  # noqa: F401
    from tengri_fast.market import reader

    layout = reader.layout
    for kind in ("quote", "trade", "bar", "depth"):
        assert layout[kind]["zero_copy"], layout[kind]["reason"]


def test_a_build_without_the_adapter_says_so() -> None:
    done = python(
        "import sys\n"
        "sys.modules['tengri_fast.nautilus.strategy'] = None\n"
        "import tengri_fast.nautilus as room\n"
        "try:\n"
        "    room.TengriNeuralStrategy\n"
        "except ImportError as error:\n"
        "    print(type(error).__name__, '|', error)\n"
    )
    assert done.stdout.startswith("UnsupportedNautilusError | `tengri_fast.nautilus.strategy` must be"), done.stderr
