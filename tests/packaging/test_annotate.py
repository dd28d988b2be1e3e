"""Functions that run on every event make no call into Python: read from Cython's annotated pages."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from support import REPOSITORY

# Functions between the arrival of an event and the signal, by extension. Not one call into Python.
PURE = {
    "runtime/engine_core": [
        "EngineCore.begin",
        "EngineCore._catch_up",
        "EngineCore._begins_anew",
        "EngineCore.on_quote",
        "EngineCore.on_trade",
        "EngineCore.on_bar",
        "EngineCore.on_depth",
        "EngineCore.on_leg",
        "EngineCore.on_external",
        "EngineCore._step",
        "EngineCore.prepare",
        "EngineCore._reset",
        "EngineCore._place",
        "EngineCore._load",
        "take",
        "emit_row",
        "finish_session",
        "prepare_session",
        "reset_session",
    ],
    "inference/window": ["time_window"],
    "inference/ensemble_session": ["EnsembleSession.judge", "EnsembleSession.combine", "note_time"],
    "runtime/latency": ["LatencyHistogram.record"],
    "runtime/policy": ["DecisionPolicy.decide"],
    "risk/sizing": ["PositionSizer.decide", "PositionSizer.observe", "EwmaVariance.observe", "FractionalKelly.answer"],
    "market/reader": ["TickReader.read_quote", "TickReader.read_trade", "TickReader.read_bar", "TickReader.read_depth"],
    "market/slots": ["InstrumentSlots.lookup"],
    "nautilus/gate_accounts": ["GateAccounts._price_moved", "GateAccounts._revalue", "GateAccounts._add_up"],
    "nautilus/gate_market": [
        "GateMarket.handle_quote_tick",
        "GateMarket.handle_trade_tick",
        "GateMarket._quote",
        "GateMarket._last",
    ],
    "nautilus/gate_names": ["NameTable.drop", "NameTable.clear"],
    "nautilus/gate_prices": ["GatePrices.keep_quote", "GatePrices.keep_last", "GatePrices.rate"],
    "nautilus/gate_screen": ["GateScreen._reducible", "GateScreen._adds_nothing"],
    "nautilus/strategy": [
        "TengriNeuralStrategy.handle_quote_tick",
        "TengriNeuralStrategy.handle_trade_tick",
        "TengriNeuralStrategy._listens",
        "TengriNeuralStrategy._watch",
    ],
}


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("annotate", REPOSITORY / "tools" / "annotate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SAMPLE = """\
cdef class Counter:
    cdef long count
    cdef object last

    cdef long quick(self, long step) noexcept nogil:
        # a comment
        self.count += step
        return self.count

    cdef object slow(
        self,
        object name,
    ):
        self.last = name.upper()
        return [name]


cdef double twice(double x) noexcept nogil:
    return 2 * x
"""


def test_the_tool_tells_quick_from_slow(tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = tmp_path / "sample.pyx"
    source.write_text(SAMPLE, encoding="utf-8")
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    page = tool.annotate([source], tmp_path / "pages")[source]
    assert list(tool.function_lines(source, "Counter.quick")) == [6, 7, 8, 9]
    assert list(tool.function_lines(source, "twice")) == [19]
    assert tool.python_calls(source, page, "Counter.quick") == {}
    assert tool.python_calls(source, page, "twice") == {}
    slow = tool.python_calls(source, page, "Counter.slow")
    assert set(slow) == {14, 15}
    assert "PyList_New" in slow[15]
    with pytest.raises(LookupError, match=r"no `Counter\.missing`"):
        tool.function_lines(source, "Counter.missing")


@pytest.fixture(scope="module")
def pages(tool: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Source and annotated page of each extension in the table."""
    pytest.importorskip("nautilus_trader", reason="the adapter is annotated against Nautilus' declarations")
    sources = {name: REPOSITORY / "tengri_fast" / f"{name}.pyx" for name in PURE}
    made = tool.annotate(list(sources.values()), tmp_path_factory.mktemp("annotate"))
    return {name: (source, made[source]) for name, source in sources.items()}


@pytest.mark.slow
@pytest.mark.parametrize(("extension", "function"), [(name, f) for name, functions in PURE.items() for f in functions])
def test_hot_functions_do_not_call_python(
    tool: ModuleType, pages: dict[str, tuple[Path, Path]], extension: str, function: str
) -> None:
    source, page = pages[extension]
    assert tool.python_calls(source, page, function) == {}


@pytest.mark.slow
def test_the_pages_are_those_of_our_extensions(tool: ModuleType, pages: dict[str, tuple[Path, Path]]) -> None:
    """Constructors do call Python; a page in which they do not was not understood."""
    for extension, function in [
        ("runtime/engine_core", "EngineCore.__init__"),
        ("runtime/policy", "DecisionPolicy.__init__"),
        ("nautilus/strategy", "TengriNeuralStrategy.__init__"),
    ]:
        assert tool.python_calls(*pages[extension], function)
