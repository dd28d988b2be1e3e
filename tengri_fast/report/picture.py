"""The picture: the first page of the report as one PNG, drawn from the numbers that the HTML page shows."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from tengri_fast.report import _format as show
from tengri_fast.report import _style as style
from tengri_fast.report._extra import load
from tengri_fast.report.charts import log_ticks

__all__ = ["HEIGHT", "WIDTH", "picture_png"]

WIDTH, HEIGHT = 1600, 1000
"""Pixels."""

_DPI = 100
_NOTE_COLUMNS = 195
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Page = Mapping[str, Any]


def _plain(text: Any, limit: int = 10_000) -> str:
    """`text` on one line, cut at `limit`; control characters become spaces and a dollar sign starts no formula."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    line = line if len(line) <= limit else line[: limit - 1] + "…"
    return line.replace("$", r"\$")


def _times(milliseconds: Sequence[float]) -> list[datetime]:
    return [_EPOCH + timedelta(milliseconds=m) for m in milliseconds]


class _Canvas:
    """One figure and the few ways this picture draws on it."""

    def __init__(self) -> None:
        purpose = "The PNG report"
        self.dates = load("matplotlib.dates", purpose)
        self.ticker = load("matplotlib.ticker", purpose)
        self.patches = load("matplotlib.patches", purpose)
        self.figure = load("matplotlib.figure", purpose).Figure(
            figsize=(WIDTH / _DPI, HEIGHT / _DPI), dpi=_DPI, facecolor=style.CANVAS
        )
        load("matplotlib.backends.backend_agg", purpose).FigureCanvasAgg(self.figure)
        to_share = load("matplotlib.transforms", purpose).Affine2D().scale(1 / WIDTH, 1 / HEIGHT)
        self._pixels = to_share + self.figure.transFigure

    def text(self, x: float, y: float, text: str, **more: Any) -> None:
        """Text at pixels from the left and from the top."""
        options = {"color": style.INK, "fontsize": 10, "va": "top", "ha": "left", **more}
        self.figure.text(x / WIDTH, 1 - y / HEIGHT, text, **options)

    def box(self, x: float, y: float, width: float, height: float, face: str = style.PAPER, edge: str = "") -> None:
        patch = self.patches.FancyBboxPatch(
            (x, HEIGHT - y - height),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=6",
            facecolor=face,
            edgecolor=edge or style.BORDER,
            linewidth=1,
            transform=self._pixels,
            zorder=0,
        )
        self.figure.add_artist(patch)

    def panel(self, x: float, y: float, width: float, height: float, title: str) -> None:
        self.box(x, y, width, height)
        self.text(x + 14, y + 11, title, fontsize=10.5, weight="bold")

    def axes(self, x: float, y: float, width: float, height: float, **more: Any) -> Any:
        """Axes whose frame stands at these pixels (from the top left)."""
        ax = self.figure.add_axes((x / WIDTH, 1 - (y + height) / HEIGHT, width / WIDTH, height / HEIGHT), **more)
        ax.set_facecolor(style.PAPER)
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            ax.spines[side].set_color(style.BORDER)
        ax.tick_params(colors=style.MUTED, labelsize=8.5, length=3, color=style.BORDER)
        ax.grid(True, color=style.GRID, linewidth=0.8)
        ax.set_axisbelow(True)
        return ax

    def nothing(self, x: float, y: float, width: float, height: float, text: str) -> None:
        self.text(x + width / 2, y + height / 2, text, ha="center", va="center", color=style.MUTED, fontsize=10)

    def plain_numbers(self, axis: Any) -> None:
        axis.set_major_formatter(self.ticker.FuncFormatter(lambda value, _: show.exact(round(value, 9))))

    def time_axis(self, ax: Any) -> None:
        locator = self.dates.AutoDateLocator(tz=UTC, minticks=4, maxticks=8)
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(self.dates.ConciseDateFormatter(locator, tz=UTC, show_offset=False))


def _label(ax: Any, x: str = "", y: str = "") -> None:
    ax.set_xlabel(x, fontsize=9, color=style.MUTED, labelpad=3)
    ax.set_ylabel(y, fontsize=9, color=style.MUTED, labelpad=4)


def _header(c: _Canvas, page: Page) -> None:
    first, last = page["span"]
    c.text(36, 24, _plain(page["title"], 74), fontsize=19, weight="bold")
    head = page["headline"]
    same_day = show.utc(first, decimals=0)[:10] == show.utc(last, decimals=0)[:10]
    end = show.utc(last, decimals=0, date=not same_day)
    span = f"{show.utc(first, decimals=0)} to {end} UTC ({show.duration(head['span_seconds'])})"
    c.text(36, 60, _plain(f"{page['instrument_id']}   ·   {span}", 150), fontsize=11, color=style.MUTED)
    c.text(WIDTH - 36, 30, _plain(page["name"], 50), fontsize=11, color=style.MUTED, ha="right")
    if page["isa"]:
        c.text(WIDTH - 36, 60, _plain(f"computed with {page['isa']}", 50), fontsize=11, color=style.MUTED, ha="right")
    lines = textwrap.wrap(_plain(" ".join(page["notes"]) or page["disclaimer"]), _NOTE_COLUMNS)
    shown = lines[:2]
    if len(lines) > 2:
        shown[1] = shown[1][: _NOTE_COLUMNS - 2] + " …"
    c.box(36, 88, WIDTH - 72, 46, style.WARN_SOFT, "#ecd9a0")
    c.text(52, 111, "\n".join(shown), fontsize=10.5, color="#6b4f10", va="center", linespacing=1.35)


def _cards(c: _Canvas, page: Page) -> None:
    head, currency = page["headline"], _plain(page["currency"], 8)
    latency, skill, orders = page["latency"] or {}, page["skill"], page["orders"]
    tone = {True: style.GAIN, False: style.LOSS}
    model = skill["rates"][0] if skill and skill["moves"] else None
    rivals = [r for r in skill["rates"][1:] if r["rate"] is not None] if model else []
    best = max(rivals, key=lambda r: r["rate"], default=None)
    drill = sum(row["drill"] for row in page["denied"])
    cards = [
        (
            "NET PNL AFTER FEES",
            show.money(head["pnl"], currency, signed=True),
            f"gross {show.money(head['gross'], signed=True)}, fees {show.money(head['fees'])}",
            tone[head["pnl"] > 0] if head["pnl"] else style.INK,
        ),
        (
            "LARGEST DRAWDOWN",
            show.money(head["max_drawdown"], currency),
            f"{show.percent(head['max_drawdown_share'], 3)} of peak equity",
            style.INK,
        ),
        (
            "ROUND TRIPS",
            show.count(head["trades"]),
            f"{show.percent(head['win_rate'])} won, {show.money(head['mean_net'], signed=True)} each"
            if head["trades"]
            else "none completed",
            style.INK,
        ),
        (
            "HIT RATE, FRESH BOOKS",
            show.percent(model["rate"]) if model else show.NONE,
            f"best rival {show.percent(best['rate'])} ({best['name']})" if best else "not evaluated",
            style.INK,
        ),
        (
            "TICK TO SIGNAL, P50",
            show.nanoseconds(latency.get("p50")),
            f"p99 {show.nanoseconds(latency['p99'])}, p99.9 {show.nanoseconds(latency['p999'])}"
            if latency
            else "not measured",
            style.INK,
        ),
        (
            "ORDERS DENIED",
            show.count(orders["denied"]),
            f"of {show.count(orders['submitted'])} submitted" + (f", {drill} in the drill" if drill else ""),
            style.INK,
        ),
    ]
    width, gap = 242, 15.2
    for i, (label, value, detail, colour) in enumerate(cards):
        x = 36 + i * (width + gap)
        c.box(x, 148, width, 86)
        c.text(x + 14, 160, label, fontsize=8.5, color=style.MUTED)
        c.text(x + 14, 179, _plain(value, 20), fontsize=17 if len(value) < 16 else 13.5, weight="bold", color=colour)
        c.text(x + 14, 211, _plain(detail, 44), fontsize=8.8, color=style.MUTED)


def _equity(c: _Canvas, page: Page, x: float, y: float, width: float, height: float) -> None:
    currency = _plain(page["currency"], 8)
    c.panel(x, y, width, height, f"Equity after fees and drawdown ({currency})")
    upper = (height - 82) * 0.66
    left, inner = x + 92, width - 112
    ax = c.axes(left, y + 36, inner, upper)
    times, value = _times(page["equity"]["ms"]), page["equity"]["value"]
    single = len(value) == 1
    ax.plot(times, value, color=style.LINE, linewidth=1.5, marker="o" if single else None)
    ax.axhline(page["headline"]["starting_equity"], color=style.FAINT, linewidth=1, linestyle=":")
    if times[0] == times[-1]:
        ax.set_xlim(times[0] - timedelta(seconds=1), times[0] + timedelta(seconds=1))
    c.plain_numbers(ax.yaxis)
    ax.tick_params(labelbottom=False)
    low = c.axes(left, y + 36 + upper + 12, inner, height - 36 - upper - 12 - 34, sharex=ax)
    down = _times(page["drawdown"]["ms"])
    low.fill_between(down, page["drawdown"]["value"], 0, color=style.LOSS_SOFT, linewidth=0)
    low.plot(down, page["drawdown"]["value"], color=style.LOSS, linewidth=1)
    if not any(page["drawdown"]["value"]):
        low.set_ylim(-1, 0.05)
    c.plain_numbers(low.yaxis)
    low.yaxis.set_major_locator(c.ticker.MaxNLocator(3))
    c.time_axis(low)
    c.text(x + width - 20, y + 12, "time in UTC", fontsize=8.5, color=style.MUTED, ha="right")


def _price(c: _Canvas, page: Page, x: float, y: float, width: float, height: float) -> None:
    c.panel(x, y, width, height, "Mid price with entries and exits")
    price, marks = page["price"], page["markers"]
    if not price["ms"]:
        c.nothing(x, y, width, height, "No price was recorded.")
        return
    ax = c.axes(x + 92, y + 36, width - 112, height - 36 - 34)
    ax.plot(_times(price["ms"]), price["value"], color=style.FAINT, linewidth=0.9, zorder=2)
    entry, leave = _times(marks["entry_ms"]), _times(marks["exit_ms"])
    for i, net in enumerate(marks["net"]):
        ax.plot(
            [entry[i], leave[i]],
            [marks["entry_price"][i], marks["exit_price"][i]],
            color=style.GAIN if net > 0 else style.LOSS,
            linewidth=1.3,
            zorder=3,
        )
    for side, marker, colour, name in ((1, "^", style.GAIN, "long entry"), (-1, "v", style.LOSS, "short entry")):
        rows = [i for i, s in enumerate(marks["side"]) if s == side]
        if rows:
            ax.scatter(
                [entry[i] for i in rows],
                [marks["entry_price"][i] for i in rows],
                marker=marker,
                s=44,
                color=colour,
                edgecolors="white",
                linewidths=0.6,
                zorder=5,
                label=name,
            )
    if leave:
        ax.scatter(
            leave, marks["exit_price"], s=16, facecolors="white", edgecolors=style.INK, linewidths=0.9, zorder=4,
            label="exit",
        )  # fmt: skip
        ax.legend(
            loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, frameon=False, fontsize=8.5, handletextpad=0.2,
            columnspacing=1.2, borderaxespad=0.3,
        )  # fmt: skip
    ax.margins(x=0.01)
    c.plain_numbers(ax.yaxis)
    c.time_axis(ax)


def _hit_rates(c: _Canvas, page: Page, x: float, y: float, width: float, height: float) -> None:
    skill = page["skill"]
    c.panel(x, y, width, height, "Hit rate against trivial rivals")
    if not skill or not skill["moves"]:
        c.nothing(x, y, width, height, "The signals were not evaluated.")
        return
    rates = [rate for rate in skill["rates"] if rate["rate"] is not None]
    ax = c.axes(x + 128, y + 34, width - 150, height - 34 - 46)
    for i, r in enumerate(rates):
        colour = style.LINE if r["name"] == "model" else style.RIVAL
        ax.plot([100 * r["low"], 100 * r["high"]], [-i, -i], color=colour, linewidth=2.2, solid_capstyle="butt")
        ax.plot(100 * r["rate"], -i, "o", color=colour, markersize=8)
        inside = r["rate"] > 0.8
        ax.annotate(
            show.percent(r["rate"]),
            (100 * (r["low"] if inside else r["high"]), -i),
            xytext=(-7 if inside else 7, 0),
            textcoords="offset points",
            va="center",
            ha="right" if inside else "left",
            fontsize=9,
            color=style.INK,
        )
    ax.axvline(50, color=style.FAINT, linewidth=1, linestyle=":")
    ax.set_yticks([-i for i in range(len(rates))], [_plain(r["label"], 20) for r in rates])
    ax.set_xlim(0, 100)
    ax.set_ylim(-len(rates) + 0.4, 0.6)
    ax.grid(False, axis="y")
    _label(ax, f"% of {show.count(skill['moves'])} moves called right, 95 % interval")


def _reliability(c: _Canvas, page: Page, x: float, y: float, width: float, height: float) -> None:
    skill = page["skill"]
    c.panel(x, y, width, height, "Reliability of P(up)")
    if not skill or not skill["moves"]:
        c.nothing(x, y, width, height, "The signals were not evaluated.")
        return
    found = skill["calibration"]
    rows = [i for i, n in enumerate(found["count"]) if n]
    said, was = [found["predicted"][i] for i in rows], [found["observed"][i] for i in rows]
    ax = c.axes(x + 58, y + 36, width - 78, height - 36 - 46)
    ax.plot([0, 1], [0, 1], color=style.FAINT, linewidth=1, linestyle=":")
    most = max(found["count"])
    ax.bar(
        [(found["edges"][i] + found["edges"][i + 1]) / 2 for i in rows],
        [0.22 * found["count"][i] / most for i in rows],
        width=0.09,
        color=style.LINE_SOFT,
        zorder=1,
    )
    ax.vlines(said, [found["low"][i] for i in rows], [found["high"][i] for i in rows], color=style.FAINT, linewidth=1.4)
    ax.plot(said, was, "o-", color=style.LINE, markersize=5, linewidth=1.4)
    ax.set_xlim(0, 1)
    ax.set_ylim(-0.03, 1.03)
    _label(ax, "predicted (bars: how often)", "observed")
    ax.text(0.03, 0.95, f"ECE {show.number(found['ece'], 3)}\nBrier {show.number(found['brier'], 3)}", fontsize=8.8,
            transform=ax.transAxes, va="top", color=style.INK)  # fmt: skip


def _coverage(c: _Canvas, page: Page, x: float, y: float, width: float, height: float) -> None:
    skill = page["skill"]
    c.panel(x, y, width, height, "Accuracy against coverage")
    if not skill or not skill["moves"]:
        c.nothing(x, y, width, height, "The signals were not evaluated.")
        return
    found = skill["coverage"]
    share = [100 * v for v in found["coverage"]]
    ax = c.axes(x + 58, y + 36, width - 78, height - 36 - 46)
    ax.fill_between(
        share, [100 * v for v in found["low"]], [100 * v for v in found["high"]], color=style.LINE_SOFT, linewidth=0
    )
    ax.plot(share, [100 * v for v in found["accuracy"]], "o-", color=style.LINE, markersize=3.5, linewidth=1.5)
    for rival in skill["rates"][1:]:
        if rival["name"] == "imbalance" and rival["rate"] is not None:
            ax.axhline(100 * rival["rate"], color=style.RIVAL, linewidth=1.2, linestyle="--", label="imbalance sign")
            ax.legend(loc="lower left", frameon=False, fontsize=8.5)
    ax.set_xlim(0, 102)
    _label(ax, "share of moves kept, surest first (%)", "hit rate (%)")


def _latency(c: _Canvas, page: Page, x: float, y: float, width: float, height: float) -> None:
    c.panel(x, y, width, height, "Tick to signal")
    found = page["latency"]
    if not found:
        c.nothing(x, y, width, height, "Latency was not measured.")
        return
    ax = c.axes(x + 62, y + 36, width - 82, height - 36 - 46)
    ax.stairs(found["counts"], found["edges"], fill=True, color=style.LINE_SOFT)
    ax.stairs(found["counts"], found["edges"], color=style.LINE, linewidth=1.2)
    ax.set_xscale("log")
    # Room on the right keeps the labels of the tail inside the frame.
    ax.set_xlim(found["edges"][0] * 0.9, max(found["edges"][-1], found["max"]) * 1.6)
    for i, (key, label) in enumerate((("p50", "p50"), ("p99", "p99"), ("p999", "p99.9"), ("max", "max"))):
        ax.axvline(found[key], color=style.INK, linewidth=0.8, linestyle=":")
        low, high = ax.get_xlim()
        late = found[key] > (low * high) ** 0.5
        ax.text(
            found[key],
            0.98 - 0.12 * i,
            f" {label} {show.nanoseconds(found[key])} ",
            transform=ax.get_xaxis_transform(),
            fontsize=8.8,
            va="top",
            ha="right" if late else "left",
            color=style.INK,
            bbox={"facecolor": style.PAPER, "alpha": 0.8, "linewidth": 0, "pad": 0.5},
        )
    low, high = ax.get_xlim()
    ticks = log_ticks((low, high))
    ax.xaxis.set_minor_locator(c.ticker.NullLocator())
    ax.set_xticks(ticks["tickvals"], ticks["ticktext"])
    ax.set_xlim(low, high)
    ax.yaxis.set_major_formatter(c.ticker.FuncFormatter(lambda v, _: show.count(round(v))))
    ax.yaxis.set_major_locator(c.ticker.MaxNLocator(4, integer=True))
    _label(ax, f"logarithmic, {show.count(found['total'])} ticks")


def _denied(c: _Canvas, page: Page, x: float, y: float, width: float, height: float) -> None:
    c.panel(x, y, width, height, "Orders denied by rule")
    rows = page["denied"][:7]
    if not rows:
        c.nothing(x, y, width, height, "No order was denied.")
        return
    ax = c.axes(x + 158, y + 36, width - 190, height - 36 - 34)
    spots = [-i for i in range(len(rows))]
    own = [r["total"] - r["drill"] for r in rows]
    drill = [r["drill"] for r in rows]
    ax.barh(spots, own, height=0.55, color=style.LOSS, label="strategy")
    ax.barh(spots, drill, left=own, height=0.55, color=style.RIVAL, label="drill")
    for spot, row in zip(spots, rows, strict=True):
        ax.annotate(show.count(row["total"]), (row["total"], spot), xytext=(5, 0), textcoords="offset points",
                    va="center", fontsize=9, color=style.INK)  # fmt: skip
    ax.set_yticks(spots, [_plain(r["rule"], 22) for r in rows])
    # A free row at the bottom keeps the legend off the bars.
    ax.set_ylim(-max(len(rows), 3) - (0.4 if any(drill) else -0.4), 0.6)
    ax.set_xlim(0, 1.18 * max(r["total"] for r in rows))
    ax.xaxis.set_major_locator(c.ticker.MaxNLocator(4, integer=True))
    ax.grid(False, axis="y")
    if any(drill):
        ax.legend(loc="lower right", frameon=False, fontsize=8.5, borderaxespad=0.2)


def _footer(c: _Canvas, page: Page) -> None:
    versions = page["versions"]
    parts = [f"{name} {version}" for name, version in list(versions.items())[:5]]
    if page["config_sha256"]:
        parts.append(f"configuration {show.bytes_hash(page['config_sha256'])}")
    model = page["model_sha256"]
    hashes = list(model.values()) if isinstance(model, Mapping) else [model]
    if any(hashes):
        parts.append("model " + ", ".join(show.bytes_hash(h) for h in hashes if h))
    if page["commit"]:
        parts.append(f"commit {show.bytes_hash(page['commit'])}")
    c.text(36, HEIGHT - 14, _plain("   ·   ".join(parts), 200), fontsize=8.5, color=style.MUTED, va="bottom")
    c.text(
        WIDTH - 36, HEIGHT - 14, "simulated on recorded data", fontsize=8.5, color=style.MUTED, va="bottom", ha="right"
    )


def picture_png(page: Page) -> bytes:
    """The first page as a PNG of ``WIDTH`` x ``HEIGHT`` pixels.

    Parameters
    ----------
    page : mapping
        What :func:`tengri_fast.report.page.page_data` returned.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    matplotlib = load("matplotlib", "The PNG report")
    # A user's own matplotlib settings must not change the picture; rc_context leaves them as they were.
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        c = _Canvas()
        _header(c, page)
        _cards(c, page)
        top, gap = 250, 14
        left, right = 930, WIDTH - 72 - 930 - gap
        _equity(c, page, 36, top, left, 352)
        _price(c, page, 36, top + 352 + gap, left, 352)
        x = 36 + left + gap
        _hit_rates(c, page, x, top, right, 186)
        half = (right - gap) / 2
        _reliability(c, page, x, top + 200, half, 236)
        _coverage(c, page, x + half + gap, top + 200, half, 236)
        _latency(c, page, x, top + 450, half, 268)
        _denied(c, page, x + half + gap, top + 450, half, 268)
        _footer(c, page)
        stream = io.BytesIO()
        c.figure.savefig(stream, format="png", dpi=_DPI, facecolor=style.CANVAS, metadata={"Software": None})
    return stream.getvalue()
