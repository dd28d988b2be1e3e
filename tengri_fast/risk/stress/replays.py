"""Draws the historical scenarios that ship, ``data/replays.toml``, out of price histories.

::

    python -m tengri_fast.risk.stress.replays --data DIR [--out FILE]

``DIR`` holds the folders ``daily``, ``stress`` and ``macro`` with the files named in :data:`FILES`. Only figures go
into the result, with the source and licence of the data behind each; the data stay where they are.

*Daily episodes.* In the window of an episode the worst move of the S&P 500 over 1, 5 and 10 trading days and from its
peak to its trough fixes two dates. All shocks of the scenario are moves between the closes of those two dates, so that
they are joint: index, Nasdaq, twenty stocks, the means of their sectors, and the VIX where the daily series has it.

*Gaps.* The low of a day against the close before, from hourly prices; the rebound is the part won back at the close.

*Minutes.* The worst moves of SPY within a session of 2008, and of the BTC perpetual of FTX in January 2022.

*Months.* FRED-MD: changes between monthly averages of rates, spreads, currencies, oil, metals, index and VIX.
"""

from __future__ import annotations

import csv
import gzip
import math
import os
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import click
import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError, MissingExtraError
from tengri_fast.risk._files import written_whole
from tengri_fast.risk.stress.scenario import Gap, StressScenario
from tengri_fast.risk.stress.toml_file import to_toml

__all__ = ["FILES", "draw", "main"]

Floats = npt.NDArray[np.float64]

#: File, and the licence of it.
FILES = {
    "index": ("daily/sp500_index_1990_2022.csv.gz", "BSD-3-Clause (data set of skfolio)"),
    "stocks": ("daily/sp500_20stocks_1990_2022.csv.gz", "BSD-3-Clause (data set of skfolio)"),
    "nasdaq": ("daily/nasdaq_1999_2018.csv.gz", "NCSA (data set of arch)"),
    "vix": ("daily/vix.csv.gz", "NCSA (data set of arch)"),
    "spy": ("daily/spy_daily.parquet", "Apache-2.0 repository (QuantConnect Lean); the vendor's data are not shipped"),
    "qqq": ("daily/qqq_daily.parquet", "Apache-2.0 repository (QuantConnect Lean); the vendor's data are not shipped"),
    "hours": (
        "stress/spy_hour_1998_2021.parquet",
        "Apache-2.0 repository (QuantConnect Lean); the vendor's data are not shipped",
    ),
    "minutes": ("stress/spy_1min_2008-08_2008-12.parquet", "none stated; the data are not shipped"),
    "btc": (
        "stress/ftx_btcperp_1min_202201.parquet",
        "LGPL-3.0 repository (NautilusTrader test data); the data are not shipped",
    ),
    "months": ("macro/fred_md_to_2014.csv.gz", "FRED-MD, Federal Reserve Bank of St. Louis: public, with attribution"),
}

SECTORS = {
    "consumer_discretionary": ("BBY", "HD"),
    "consumer_staples": ("KO", "PEP", "PG", "WMT"),
    "energy": ("CVX", "RRC", "XOM"),
    "financials": ("BAC", "JPM"),
    "health_care": ("JNJ", "LLY", "MRK", "PFE", "UNH"),
    "industrials": ("GE",),
    "technology": ("AAPL", "AMD", "MSFT"),
}

# Name, first and last day of the window.
EPISODES = (
    ("1997-10 Asian crisis", "1997-10-01", "1997-10-31"),
    ("1998-08 Russia and LTCM", "1998-07-15", "1998-10-15"),
    ("2000-04 technology bubble", "2000-03-01", "2000-05-31"),
    ("2001-09 attacks", "2001-09-04", "2001-09-28"),
    ("2002-07 accounting scandals", "2002-05-15", "2002-07-31"),
    ("2008-09/10 credit crisis", "2008-09-02", "2008-10-31"),
    ("2008-11 credit crisis", "2008-11-03", "2008-12-01"),
    ("2010-05 flash crash", "2010-04-20", "2010-05-28"),
    ("2011-08 downgrade", "2011-07-15", "2011-08-31"),
    ("2015-08 China", "2015-08-10", "2015-08-31"),
    ("2018-02 volatility funds", "2018-01-22", "2018-02-15"),
    ("2018-12 sell-off", "2018-12-03", "2018-12-31"),
    ("2020-03 pandemic", "2020-02-14", "2020-03-31"),
    ("2022-06 inflation", "2022-04-01", "2022-06-30"),
)

# Windows of which only the fall from peak to trough says something that no episode does.
MARKETS = (("2000-2002 bear market", "2000-01-03", "2002-12-31"), ("2007-2009 bear market", "2007-10-01", "2009-03-31"))

GAPS = (("2010-05-06 flash crash", "2010-05-06"), ("2015-08-24 open", "2015-08-24"))

# Name, first and last month.
MONTHS = (
    ("1979-80 Volcker", "1979-09", "1980-03"),
    ("1987-10 crash", "1987-09", "1987-11"),
    ("1990 Gulf oil", "1990-07", "1990-10"),
    ("1992-09 sterling leaves the ERM", "1992-08", "1992-11"),
    ("1994 bond sell-off", "1994-01", "1994-11"),
    ("1998-08 Russia and LTCM", "1998-07", "1998-10"),
    ("2008-09/12 credit crisis", "2008-08", "2008-12"),
    ("2014 oil", "2014-06", "2014-12"),
)

SESSION = (datetime.min.replace(hour=9, minute=30).time(), datetime.min.replace(hour=16).time())
DAY = timedelta(days=1)


def _rows(data: Path, key: str) -> list[dict[str, Any]]:
    path = data / FILES[key][0]
    if not path.is_file():
        raise DataConversionError(f"`--data` must hold {FILES[key][0]}, {path} does not exist")
    if path.suffix == ".parquet":
        try:
            import pyarrow.parquet as parquet
        except ImportError as error:
            raise MissingExtraError("pyarrow", "data", "Drawing scenarios from Parquet") from error
        rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
        return rows
    with gzip.open(path, "rt", encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _day(text: str) -> date:
    if "/" in text:
        month, day, year = (int(part) for part in text.split("/"))
        return date(year, month, day)
    return date.fromisoformat(text[:10]) if "-" in text else date(int(text[:4]), int(text[4:6]), int(text[6:8]))


def _number(text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return math.nan


def _daily(data: Path, key: str, dates: str, column: str) -> dict[date, float]:
    found = {_day(row[dates]): _number(row[column]) for row in _rows(data, key)}
    return {day: value for day, value in found.items() if value > 0.0}


def _rounded(value: float) -> float:
    return round(value, 6)


def _note(*keys: str) -> tuple[str, str]:
    files = [FILES[key][0] for key in keys]
    return "drawn from " + ", ".join(files), "; ".join(dict.fromkeys(FILES[key][1] for key in keys))


def _worst(values: Floats, ends: npt.NDArray[np.int64], steps: int) -> tuple[int, int]:
    """Start and end of the worst move over ``steps`` whose end is one of ``ends``; the earliest of equals."""
    usable = ends[ends >= steps]
    moves = values[usable] / values[usable - steps] - 1.0
    end = int(usable[int(np.argmin(moves))])
    return end - steps, end


def _trough(values: Floats, inside: npt.NDArray[np.int64]) -> tuple[int, int]:
    """Peak and trough of the largest fall within consecutive positions."""
    part = values[inside]
    peaks = np.maximum.accumulate(part)
    low = int(np.argmin(part / peaks))
    high = int(np.argmax(part[: low + 1]))
    return int(inside[high]), int(inside[low])


def _episodes(data: Path) -> list[StressScenario]:
    index = _daily(data, "index", "Date", "SP500")
    names = [stock for sector in SECTORS.values() for stock in sector]
    stocks = {_day(row["Date"]): row for row in _rows(data, "stocks")}
    nasdaq = _daily(data, "nasdaq", "Date", "Close")
    vix = _daily(data, "vix", "Date", "vix")
    spy = _daily(data, "spy", "datetime", "close")
    # Splits and a hole of six years lie before.
    qqq = {day: price for day, price in _daily(data, "qqq", "datetime", "close").items() if day >= date(2011, 3, 23)}
    days = sorted(index)
    values = np.array([index[day] for day in days])
    found = []
    for name, first, last in (*EPISODES, *MARKETS):
        inside = np.array([i for i, day in enumerate(days) if _day(first) <= day <= _day(last)])
        horizons = () if (name, first, last) in MARKETS else (1, 5, 10)
        pairs = [(f"{steps}d", _worst(values, inside, steps)) for steps in horizons]
        pairs.append(("peak to trough", _trough(values, inside)))
        for label, (start, end) in pairs:
            a, b = days[start], days[end]
            move = _rounded(values[end] / values[start] - 1.0)
            by_stock = {stock: float(stocks[b][stock]) / float(stocks[a][stock]) - 1.0 for stock in sorted(names)}
            factors, units = {"equity_index": move}, {}
            instruments = {stock: _rounded(value) for stock, value in by_stock.items()}
            used = ["index", "stocks"]
            for key, series, symbol in (("spy", spy, "SPY"), ("qqq", qqq, "QQQ")):
                if a in series and b in series:
                    instruments[symbol] = _rounded(series[b] / series[a] - 1.0)
                    used.append(key)
            if a in nasdaq and b in nasdaq:
                factors["nasdaq"] = _rounded(nasdaq[b] / nasdaq[a] - 1.0)
                used.append("nasdaq")
            if a in vix and b in vix:
                factors["vix"], units["vix"] = _rounded(vix[b] - vix[a]), "points"
                used.append("vix")
            classes = {"equity": move, "index": move}
            for sector, members in SECTORS.items():
                classes[f"equity.{sector}"] = _rounded(float(np.mean([by_stock[stock] for stock in members])))
            source, licence = _note(*used)
            found.append(
                StressScenario(
                    f"{name} ({label})",
                    "replay",
                    source,
                    f"{a} .. {b}",
                    label if label.endswith("d") else f"{end - start}d",
                    licence,
                    instruments=instruments,
                    asset_classes=classes,
                    factors=factors,
                    units=units,
                )
            )
    return found


def _gaps(data: Path) -> list[StressScenario]:
    days: dict[date, list[dict[str, Any]]] = {}
    for row in _rows(data, "hours"):
        days.setdefault(_day(row["datetime"]), []).append(row)
    ordered = sorted(days)
    found = []
    for name, text in GAPS:
        day = _day(text)
        before = days[ordered[ordered.index(day) - 1]][-1]["close"]
        low, close = min(row["low"] for row in days[day]), days[day][-1]["close"]
        move = _rounded(low / before - 1.0)
        source, licence = _note("hours")
        found.append(
            StressScenario(
                f"{name} (low of the day, as a gap)",
                "gap",
                f"{source}: low of the day against the close before; the rebound is what the close won back",
                f"{text} .. {text}",
                "1d",
                licence,
                asset_classes={"equity": move, "index": move},
                instruments={"SPY": move},
                gap=Gap(rebound=_rounded((close - low) / (before - low))),
            )
        )
    return found


def _sessions(data: Path) -> list[StressScenario]:
    zone = ZoneInfo("America/New_York")
    rows = [(row["timestamp"].astimezone(zone), row["close"]) for row in _rows(data, "minutes")]
    rows = [(time, price) for time, price in rows if SESSION[0] <= time.time() < SESSION[1]]
    values = np.array([price for _, price in rows])
    minutes = np.array([round(time.timestamp()) // 60 for time, _ in rows])
    found = []
    for steps in (1, 5, 30, 60):
        # Consecutive minutes only: no night and no hole between start and end.
        ends = np.flatnonzero(minutes[steps:] - minutes[:-steps] == steps) + steps
        start, end = _worst(values, ends, steps)
        move = _rounded(values[end] / values[start] - 1.0)
        source, licence = _note("minutes")
        dates = f"{rows[start][0].astimezone(UTC):%Y-%m-%d %H:%M} .. {rows[end][0].astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        found.append(
            StressScenario(
                f"2008-08/12 credit crisis ({steps}m)",
                "replay",
                f"{source}: closes of minutes within one session",
                dates,
                f"{steps}m",
                licence,
                asset_classes={"equity": move, "index": move},
                instruments={"SPY": move},
                factors={"equity_index": move},
            )
        )
    return found


def _crypto(data: Path) -> list[StressScenario]:
    rows = [(str(row["timestamp"])[:16], row["close"]) for row in _rows(data, "btc")]
    values = np.array([price for _, price in rows])
    every = np.arange(values.size)
    pairs = [
        (label, _worst(values, every, steps))
        for label, steps in (("1m", 1), ("60m", 60), ("1d", 1440), ("5d", 7200), ("10d", 14400))
    ]
    pairs.append(("peak to trough", _trough(values, every)))
    found = []
    for label, (start, end) in pairs:
        move = _rounded(values[end] / values[start] - 1.0)
        source, licence = _note("btc")
        found.append(
            StressScenario(
                f"2022-01 FTX BTC-PERP ({label})",
                "replay",
                f"{source}: closes of minutes; other crypto assets are taken to move as much",
                f"{rows[start][0]} .. {rows[end][0]} UTC",
                label if label != "peak to trough" else f"{(end - start) // 1440}d",
                licence,
                asset_classes={"crypto": move},
                instruments={"BTC-PERP": move},
                factors={"btc": move},
            )
        )
    return found


def _months(data: Path) -> list[StressScenario]:
    rows = {_day(row["sasdate"]): row for row in _rows(data, "months") if "/" in row["sasdate"]}
    found = []
    for name, first, last in MONTHS:
        a, b = (rows[date.fromisoformat(f"{month}-01")] for month in (first, last))

        def change(column: str, a: dict[str, Any] = a, b: dict[str, Any] = b) -> float:
            return _rounded(_number(b[column]) / _number(a[column]) - 1.0)

        def points(*columns: str, a: dict[str, Any] = a, b: dict[str, Any] = b) -> float:
            signs = (1.0, -1.0)
            return _rounded(
                sum(sign * (_number(b[c]) - _number(a[c])) for sign, c in zip(signs, columns, strict=False))
            )

        # Quotes against the dollar: dollars per pound, yen, francs and Canadian dollars per dollar.
        per_dollar = {"CAD": "EXCAUSx", "CHF": "EXSZUSx", "JPY": "EXJPUSx"}
        inverse = {key: _rounded(_number(a[c]) / _number(b[c]) - 1.0) for key, c in per_dollar.items()}
        factors = {
            "equity_index": change("S&P 500"),
            "rates_3m": points("TB3MS"),
            "rates_5y": points("GS5"),
            "rates_10y": points("GS10"),
            "corporate_spread": points("BAA", "GS10"),
            "oil": change("OILPRICEx"),
            "vix": points("VIXCLSx"),
        }
        units = {key: "percentage points" for key in ("rates_3m", "rates_5y", "rates_10y", "corporate_spread")} | {
            "vix": "points"
        }
        source, licence = _note("months")
        found.append(
            StressScenario(
                f"{name} (monthly averages)",
                "replay",
                f"{source}: changes between the averages of two months, milder than those of days",
                f"{first} .. {last}",
                f"{(int(last[:4]) - int(first[:4])) * 12 + int(last[5:]) - int(first[5:])} months",
                licence,
                asset_classes={
                    "equity": change("S&P 500"),
                    "index": change("S&P 500"),
                    "commodity.energy": change("OILPRICEx"),
                    "commodity.metals": change("PPICMM"),
                },
                currencies={"GBP": change("EXUSUKx"), **inverse},
                factors={key: value for key, value in factors.items() if math.isfinite(value)},
                units={key: unit for key, unit in units.items() if math.isfinite(factors[key])},
            )
        )
    return found


def draw(data: str | os.PathLike[str]) -> str:
    """The text of ``replays.toml``.

    Parameters
    ----------
    data : path
        Folder with the files of :data:`FILES`.

    Raises
    ------
    DataConversionError
        When a file is missing.
    MissingExtraError
        When pyarrow is not installed.
    """
    root = Path(data)
    scenarios = (*_episodes(root), *_gaps(root), *_sessions(root), *_crypto(root), *_months(root))
    head = (
        "# Historical scenarios: figures drawn from price histories by\n"
        "#     python -m tengri_fast.risk.stress.replays --data DIR\n"
        "# Each says where its figures come from and under which licence; the histories themselves are not shipped.\n\n"
    )
    return head + to_toml(scenarios)


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False), help="folder of the histories")
@click.option("--out", type=click.Path(dir_okay=False), help="file to write; data/replays.toml of the package if none")
def main(data: str, out: str | None) -> None:
    """Draw the historical scenarios again."""
    text = draw(data)
    target = Path(out) if out else Path(__file__).with_name("data") / "replays.toml"
    with written_whole(target) as stream:
        stream.write(text.encode())
    click.echo(f"{text.count('[[scenario]]')} scenarios in {target}")


def _command(arguments: Sequence[str] | None = None) -> None:
    try:
        main.main(args=list(arguments) if arguments is not None else None, standalone_mode=True)
    except (DataConversionError, MissingExtraError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    _command(sys.argv[1:])
