"""The page, the picture, the summary and the terminal lines: what they must hold, whatever the run was."""

from __future__ import annotations

import html
import io
import itertools
import json
import math
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tengri_fast.errors import MissingExtraError
from tengri_fast.report import Denial, Latency, RunRecord, summary, terminal_summary, write_report
from tengri_fast.report import _format as show
from tengri_fast.report.page import DISCLAIMER, decimate, drawdown, page_data

go = pytest.importorskip("plotly.graph_objects", reason="needs the report extra")
pytest.importorskip("matplotlib", reason="needs the report extra")

from tengri_fast.report.charts import figures, log_ticks  # noqa: E402
from tengri_fast.report.picture import HEIGHT, WIDTH, picture_png  # noqa: E402
from tengri_fast.report.web import page_html  # noqa: E402

FIXED_KEYS = [
    "pnl", "fees", "currency", "trades", "hit_rate", "baselines", "tick_to_signal_ns", "orders", "isa", "versions",
    "data_sha256", "config_sha256", "model_sha256",
]  # fmt: skip
HOSTILE = """</script><script>alert(1)</script><img src=x onerror="alert('2')">&amp;${x}"""


class Reader(HTMLParser):
    """Elements and texts of a page, as a browser would see them."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.inside: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self.inside and self.inside[-1] == "script":
            self.scripts[-1] += data
        elif not (self.inside and self.inside[-1] == "style"):
            self.texts.append(data)

    def visible(self) -> str:
        return "\n".join(self.texts)


@pytest.fixture(scope="module")
def page(record: RunRecord) -> dict[str, Any]:
    return page_data(record)


@pytest.fixture(scope="module")
def text(page: dict[str, Any]) -> str:
    return page_html(page)


@pytest.fixture(scope="module")
def hostile(make_record: Callable[..., RunRecord]) -> RunRecord:
    t = make_record().trades
    return make_record(
        name=HOSTILE,
        title=HOSTILE,
        instrument_id=HOSTILE,
        currency=HOSTILE,
        isa=HOSTILE,
        commit=HOSTILE,
        notes=[HOSTILE, "\ud800 lone surrogate", "$\\frac{1}{$ \x00"],
        config_text=HOSTILE,
        model_sha256={HOSTILE: HOSTILE},
        trades=dict(t) | {"reason": np.full(len(t["net"]), HOSTILE)},
        denials=[Denial(1, HOSTILE, HOSTILE, math.inf, math.nan, HOSTILE, "drill"), Denial(2, "=1+1", "=SUM(A1)")],
        versions={HOSTILE: HOSTILE},
        data_sha256={HOSTILE: HOSTILE},
        model_card={HOSTILE: {HOSTILE: [HOSTILE]}},
        assumptions={HOSTILE: HOSTILE},
        data_facts={HOSTILE: HOSTILE},
        machine={HOSTILE: HOSTILE},
        seeds={HOSTILE: 1},
    )


# The page -------------------------------------------------------------------------------------------------------------


def test_the_page_needs_nothing_from_outside(text: str) -> None:
    reader = Reader(text)
    assert not [tag for tag, attributes in reader.tags if "src" in attributes or tag in ("link", "iframe", "base")]
    assert all((a.get("href") or "data:").startswith("data:") for _, a in reader.tags)
    policy = next(a["content"] for tag, a in reader.tags if tag == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'")
    assert any("plotly.js v" in script for script in reader.scripts)


def test_the_page_says_what_a_reader_must_know(record: RunRecord, text: str) -> None:
    visible = Reader(text).visible()
    for note in (*record.notes, DISCLAIMER, record.title, record.instrument_id, record.isa, record.commit):
        assert note in visible
    for digest in (*record.data_sha256.values(), record.config_sha256, record.model_sha256):
        assert digest in visible
    for word in ("Taker fee", "5 bps", "Licence", "MIT for the compilation", 'strategy_id = "LSTM-001"'):
        assert word in visible
    assert visible.index(record.notes[0]) < visible.index("Net PnL after fees")


def test_the_page_lists_every_denial(record: RunRecord, text: str) -> None:
    for denial in record.denials:
        assert f"<td>{html.escape(denial.reason)}</td>" in text
        assert f"<td>{denial.order_id}</td>" in text
        assert f'<td class="n">{show.exact(denial.value)}</td><td class="n">{show.exact(denial.limit)}</td>' in text


def test_every_chart_has_its_place_and_plotly_accepts_it(page: dict[str, Any], text: str) -> None:
    reader = Reader(text)
    places = [a["id"] for tag, a in reader.tags if tag == "div" and a.get("class") == "chart"]
    drawn = figures(page)
    assert sorted(places) == sorted(drawn)
    assert len(drawn) == 9
    for figure in drawn.values():
        go.Figure(figure)  # raises on an attribute plotly does not know


def test_the_page_carries_its_numbers(page: dict[str, Any], text: str) -> None:
    reader = Reader(text)
    names = [a.get("id") for tag, a in reader.tags if tag == "script"]
    assert json.loads(reader.scripts[names.index("report-data")]) == page
    assert json.loads(reader.scripts[names.index("figures")]) == json.loads(json.dumps(figures(page)))


def test_downloads_hold_every_row(record: RunRecord, text: str) -> None:
    links = {a["download"]: a["href"] for tag, a in Reader(text).tags if tag == "a"}
    assert set(links) == {"demo-trades.csv", "demo-denials.csv"}
    rows = unquote(links["demo-trades.csv"].partition(",")[2]).splitlines()
    assert rows[0].split(",")[:2] == ["entry_ts", "entry_price"]
    assert len(rows) == 1 + len(record.trades["net"])


def test_hostile_texts_stay_texts(hostile: RunRecord) -> None:
    content = page_html(page_data(hostile)).encode("utf-8", "replace").decode()
    reader = Reader(content)
    # Two data scripts, the library and the drawing script: no text opened another one, nor any element of its own.
    assert len(reader.scripts) == 4
    assert not [tag for tag, _ in reader.tags if tag == "img"]
    assert not [name for _, attributes in reader.tags for name in attributes if name.startswith("on")]
    visible = reader.visible()
    assert visible.count(HOSTILE) > 20
    for figure in figures(page_data(hostile)).values():
        go.Figure(figure)
    csv = unquote(next(a["href"] for tag, a in reader.tags if tag == "a" and "denials" in a["download"]))
    assert "'=SUM(A1)" in csv


def test_long_lists_are_cut_on_the_page_and_whole_in_the_file(make_record: Callable[..., RunRecord]) -> None:
    denials = [Denial(i, f"O-{i}", f"RULE_{i % 12}", float(i), 1.0, f"reason {i}") for i in range(1200)]
    page = page_data(make_record(denials=denials, denied={f"RULE_{i}": 150 for i in range(12)}))
    content = page_html(page)
    assert content.count("<td>reason ") == 500
    assert "The first 500 of 1,200; the file holds all." in content
    link = next(a["href"] for tag, a in Reader(content).tags if tag == "a" and "denials" in a["download"])
    assert len(unquote(link).splitlines()) == 1201
    assert {row["total"] for row in page["denied"]} == {150}
    assert len(picture_png(page)) > 0


# The picture ----------------------------------------------------------------------------------------------------------


def png_size(data: bytes) -> tuple[int, int]:
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[-12:] == b"\x00\x00\x00\x00IEND\xaeB`\x82"
    return struct.unpack(">II", data[16:24])


def pixels(data: bytes) -> np.ndarray:
    from matplotlib.image import imread

    return imread(io.BytesIO(data), format="png")


@pytest.fixture(scope="module")
def png(page: dict[str, Any]) -> bytes:
    return picture_png(page)


def test_the_picture_is_a_picture(png: bytes) -> None:
    assert png_size(png) == (WIDTH, HEIGHT) == (1600, 1000)
    image = pixels(png)
    shades = np.round(image[..., :3] * 255).astype(np.int64) @ np.array([65536, 256, 1])
    assert len(np.unique(shades)) > 200


def test_the_picture_ignores_and_keeps_the_settings_of_the_user(page: dict[str, Any], png: bytes) -> None:
    import matplotlib

    with matplotlib.rc_context({"lines.linewidth": 9.0, "axes.facecolor": "black", "font.size": 30.0}):
        assert picture_png(page) == png
        assert matplotlib.rcParams["lines.linewidth"] == 9.0


def test_the_picture_survives_hostile_texts(hostile: RunRecord) -> None:
    assert png_size(picture_png(page_data(hostile))) == (WIDTH, HEIGHT)


# Any run --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"trades": {}, "latency": None},
        {"signals": {}, "skill": None, "latency": Latency([0.0, 1.0], [4])},
        {"mid": {}, "latency": Latency([0.0, 700.0, 800.0], [0, 4]), "notes": []},
        {"fills": {}, "trades": {}, "denials": [], "latency": Latency([5.0, 6.0], [0])},
        {"denials": [], "denied": {"MAX_POSITION": 3}},
        {"equity": {"ts": [1], "value": [-50.0]}, "starting_equity": 0.0},
    ],
)
def test_a_run_may_lack_anything(make_record: Callable[..., RunRecord], change: dict[str, Any], tmp_path: Path) -> None:
    record = make_record(**change)
    files = write_report(record, tmp_path)
    assert png_size(files["png"].read_bytes()) == (WIDTH, HEIGHT)
    for figure in figures(page_data(record)).values():
        go.Figure(figure)
    json.loads(files["summary"].read_text(), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


def test_the_least_record_is_enough(bare: RunRecord, tmp_path: Path) -> None:
    files = write_report(bare, tmp_path / "new" / "folder")
    visible = Reader(files["html"].read_text()).visible()
    for sentence in (
        "No price was recorded.", "No order was filled.", "No round trip was completed.", "No signal was recorded.",
        "Latency was not measured in this run.", "No order was denied.",
    ):  # fmt: skip
        assert sentence in visible
    numbers = json.loads(files["summary"].read_text())
    assert numbers["hit_rate"] is None
    assert numbers["baselines"] == {"imbalance": None, "reverse": None, "repeat": None}
    assert numbers["tick_to_signal_ns"] == {"p50": None, "p99": None, "p999": None, "max": None}
    assert numbers["pnl_per_trade"] is None
    assert set(files) == {"html", "png", "summary", "record"}
    assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir() if p.suffix != ".npz") == [
        "record.json", "report.html", "report.png", "summary.json",
    ]  # fmt: skip


def test_a_report_can_be_made_again_from_its_record(record: RunRecord, tmp_path: Path) -> None:
    first = write_report(record, tmp_path / "a")
    again = write_report(RunRecord.from_json(first["record"]), tmp_path / "b")
    for name, path in first.items():
        assert path.read_bytes() == again[name].read_bytes(), name


def test_a_failed_report_leaves_the_old_one(record: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = write_report(record, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr("tengri_fast.report.picture.picture_png", lambda page: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(record, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert files["png"].exists()


# Numbers --------------------------------------------------------------------------------------------------------------


def test_the_summary_has_the_promised_keys(record: RunRecord) -> None:
    found = summary(record)
    assert list(found)[: len(FIXED_KEYS)] == FIXED_KEYS
    assert list(found["baselines"]) == ["imbalance", "reverse", "repeat"]
    assert list(found["tick_to_signal_ns"]) == ["p50", "p99", "p999", "max"]
    assert list(found["orders"]) == ["submitted", "denied"]
    assert found["pnl"] == record.equity["value"][-1] - record.starting_equity
    assert found["fees"] == pytest.approx(record.fills["fee"].sum())
    assert found["pnl_gross"] == pytest.approx(found["pnl"] + found["fees"])
    assert found["trades"] == len(record.trades["net"])
    assert found["hit_rate"] == record.skill.model.rate
    assert found["hit_rate_interval"] == [record.skill.model.block_low, record.skill.model.block_high]
    assert found["baselines"]["imbalance"] == record.skill.baselines["imbalance"].rate
    assert found["orders"]["denied"] == {"MAX_ORDER_NOTIONAL": 1, "MAX_PORTFOLIO_VAR": 1, "PRICE_COLLAR": 1}
    assert found["denied_by_source"]["strategy"] == {"MAX_PORTFOLIO_VAR": 1}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=200), st.integers(4, 30))
def test_thinning_keeps_ends_and_extremes(values: list[float], limit: int) -> None:
    value = np.array(values)
    ts = np.arange(len(values), dtype=np.uint64)
    thin_ts, thin = decimate(ts, value, limit)
    assert len(thin) <= max(limit, 4)
    assert (value[thin_ts.astype(int)] == thin).all()
    assert (np.diff(thin_ts.astype(int)) > 0).all()
    assert (thin[0], thin[-1]) == (value[0], value[-1])
    assert (thin.min(), thin.max()) == (value.min(), value.max())


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=40), st.floats(-50, 50))
def test_drawdown_and_time_under_water_match_a_loop(values: list[float], starting: float) -> None:
    amount, share = drawdown(np.array(values), starting)
    peak, since, longest = starting, 0, 0
    for i, value in enumerate(values):
        was_under = i > 0 and amount[i - 1] < 0
        if value >= peak:
            longest = max(longest, i - since) if was_under else longest
            peak, since = value, i
        else:
            longest = max(longest, i - since)
        assert amount[i] == value - peak
        assert share[i] == ((value - peak) / peak if peak > 0 else 0.0)
    record = RunRecord(
        name="n",
        title="t",
        instrument_id="i",
        currency="c",
        starting_equity=starting,
        equity={"ts": np.arange(len(values)) * 1_000_000_000, "value": values},
    )
    assert page_data(record)["headline"]["under_water_seconds"] == longest


@given(st.lists(st.floats(-1e6, 1e6).map(lambda x: round(x, 6)), min_size=1, max_size=50))
def test_no_bar_of_the_trade_histogram_mixes_gains_and_losses(net: list[float]) -> None:
    n = len(net)
    record = RunRecord(
        name="n",
        title="t",
        instrument_id="i",
        currency="c",
        starting_equity=1.0,
        equity={"ts": [1], "value": [1.0]},
        trades={
            "entry_ts": [1] * n, "exit_ts": [2] * n, "entry_price": [1.0] * n, "exit_price": [1.0] * n,
            "side": [1] * n, "quantity": [1.0] * n, "gross": net, "fees": [0.0] * n,
        },
    )  # fmt: skip
    bars = page_data(record)["net_histogram"]
    edges, counts = bars["edges"], bars["counts"]
    assert sum(counts) == n
    assert all(a < b for a, b in itertools.pairwise(edges))
    assert not any(a < 0 < b for a, b in itertools.pairwise(edges))
    low = sum(c for c, b in zip(counts, edges[1:], strict=True) if b <= 0)
    assert low == sum(x < 0 for x in net)


@settings(max_examples=50)
@given(st.floats(0.6, 1e9), st.floats(1.01, 1e4))
def test_a_logarithmic_axis_always_has_two_labels(low: float, factor: float) -> None:
    ticks = log_ticks((low, low * factor))
    assert len(ticks["tickvals"]) == len(ticks["ticktext"]) >= 2


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (show.money(-1234.5, "USDT", signed=True), "−1,234.50 USDT"),
        (show.money(0.1234, signed=True), "+0.1234"),
        (show.money(-1e-12, signed=True), "0.00"),
        (show.money(None), "–"),
        (show.money(math.nan), "–"),
        (show.percent(0.7312), "73.1 %"),
        (show.percent(-0.5, 0), "−50 %"),
        (show.nanoseconds(850.0), "850 ns"),
        (show.nanoseconds(2314.0), "2.31 µs"),
        (show.nanoseconds(1_500_000.0), "1.5 ms"),
        (show.nanoseconds(3e9), "3 s"),
        (show.nanoseconds(5e12), "5,000 s"),
        (show.nanoseconds(None), "–"),
        (show.duration(12.34), "12.3 s"),
        (show.duration(366), "6 min 06 s"),
        (show.duration(7300), "2 h 01 min"),
        (show.duration(300_000), "3 d 11 h"),
        (show.exact(63900.1), "63,900.1"),
        (show.exact(0.05), "0.05"),
        (show.count(1234567), "1,234,567"),
        (show.utc(1_721_347_201_999_999_999), "2024-07-19 00:00:01.999"),
        (show.utc(1_721_347_201_999_999_999, date=False, decimals=0), "00:00:01"),
        (show.utc(2**64 - 1), "2554-07-21 23:34:33.709"),
    ],
)
def test_numbers_read_well(found: str, expected: str) -> None:
    assert found == expected


# The terminal ---------------------------------------------------------------------------------------------------------


def printed(record: RunRecord, width: int = 110) -> str:
    console = pytest.importorskip("rich.console").Console(file=io.StringIO(), width=width, color_system=None)
    console.print(terminal_summary(record))
    return console.file.getvalue()


def test_the_terminal_says_the_same_as_the_summary(record: RunRecord) -> None:
    out, numbers = printed(record), summary(record)
    assert show.money(numbers["pnl"], "USDT", signed=True) in out
    assert show.percent(numbers["hit_rate"]) in out
    for name, rate in numbers["baselines"].items():
        assert re.search(rf"{name} +{re.escape(show.percent(rate))}", out)
    for rule in numbers["orders"]["denied"]:
        assert rule in out
    for key in ("p50", "p99", "p999"):
        assert show.nanoseconds(numbers["tick_to_signal_ns"][key]) in out
    assert f"Note: {record.notes[0]}" in out
    assert len(out.splitlines()) < 24


def test_the_terminal_takes_no_markup_from_the_record(make_record: Callable[..., RunRecord], bare: RunRecord) -> None:
    out = printed(make_record(title="[red]x[/red]", notes=["[/nope]"], denials=[Denial(1, "o", "[bold]R[/bold]")]))
    assert "[red]x[/red]" in out
    assert "[/nope]" in out
    assert "[bold]R[/bold]" in out
    assert "0 submitted" in printed(bare)


# Optional packages ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("package", "draw"), [("plotly", page_html), ("matplotlib", picture_png)])
def test_a_missing_package_names_the_extra(
    package: str, draw: Callable[[dict[str, Any]], Any], page: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)

    class Absent:
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
            if name.partition(".")[0] == package:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    with pytest.raises(MissingExtraError, match=rf"needs `{package}`.*tengri_fast\[report\]"):
        draw(page)


def test_records_need_no_drawing_package() -> None:
    code = (
        "import sys, tengri_fast.report, tengri_fast.report.skill\n"
        "heavy = {'plotly', 'matplotlib', 'rich', 'numba', 'pandas', 'nautilus_trader', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
