"""Daily series for the volatility forecaster, read from the files of the larger data set, with stated repairs.

Nothing here is shipped data: the files are looked for in the folder that the caller names (docs/volatility.md lists
them).
"""

from __future__ import annotations

import csv
import gzip
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError
from tengri_fast.risk.volatility import range_variance

__all__ = ["FILES", "Series", "load_series", "simulated_series"]

Floats = npt.NDArray[np.float64]
Dates = npt.NDArray[np.datetime64]

#: Files below the data folder, in the order in which they are read.
FILES = (
    "daily/sp500_index_1990_2022.csv.gz",
    "daily/sp500_20stocks_1990_2022.csv.gz",
    "daily/nasdaq_1999_2018.csv.gz",
    "daily/sp500_ohlcv_1999_2018.csv.gz",
    "daily/spy_daily.parquet",
    "daily/qqq_daily.parquet",
    "stress/spy_hour_1998_2021.parquet",
)
# Adjusted closes have three decimals: below 1.00 a price moves in steps of more than 10 basis points.
_LOWEST_PRICE = 1.0
# Highs, lows and hourly prices of SPY and QQQ before this day hold bad prints: the range says 2 to 9 times the variance
# that daily returns say, and about as much afterwards. The closes are sound throughout.
_CLEAN_BARS = np.datetime64("2007-01-01")
# QQQ: a 2-for-1 split that the file does not adjust for, and the return over the six years that the file leaves out.
_QQQ_DROPPED = ("2000-03-20", "2011-03-23")


@dataclass(frozen=True)
class Series:
    """Daily returns of one instrument.

    ``dates`` [T] of the returns, ``returns`` [T] simple, ``realised`` [T] the variance from the day's bar (NaN: closes
    only), ``intraday`` [T] the variance from hourly returns and the gap at the open, used to score only (NaN: none).
    """

    name: str
    group: str
    dates: Dates
    returns: Floats
    realised: Floats
    intraday: Floats


def _csv(path: Path) -> tuple[list[str], list[list[str]]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        head, *rows = list(csv.reader(file))
    return head, rows


def _from_closes(name: str, group: str, dates: Dates, closes: Floats) -> Series:
    if not (np.isfinite(closes) & (closes > 0.0)).all():
        raise DataConversionError(f"`{name}` must have finite closes > 0")
    low = np.flatnonzero(closes < _LOWEST_PRICE)
    first = int(low[-1]) + 1 if len(low) else 0
    closes, dates = closes[first:], dates[first:]
    returns = closes[1:] / closes[:-1] - 1.0
    none = np.full(len(returns), np.nan)
    return Series(name, group, dates[1:], returns, none, none)


def _from_bars(
    name: str, dates: Dates, bars: Floats, dropped: Sequence[str] = (), clean_from: np.datetime64 | None = None
) -> Series:
    o, h, lo, c = bars
    returns = c[1:] / c[:-1] - 1.0
    realised = range_variance(o[1:], h[1:], lo[1:], c[1:], c[:-1])
    if clean_from is not None:
        realised[dates[1:] < clean_from] = np.nan
    kept = ~np.isin(dates[1:], np.array(dropped, dtype="datetime64[D]"))
    return Series(name, "index bars", dates[1:][kept], returns[kept], realised[kept], np.full(int(kept.sum()), np.nan))


def _parquet(path: Path) -> tuple[npt.NDArray[np.datetime64], Floats]:
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["datetime", "open", "high", "low", "close"])
    times = np.array(
        [datetime.strptime(text, "%Y%m%d %H:%M") for text in table["datetime"].to_pylist()], "datetime64[m]"
    )
    return times, np.stack([table[key].to_numpy().astype(np.float64) for key in ("open", "high", "low", "close")])


def _hourly(path: Path, dates: Dates) -> Floats:
    """Squared gap at the open and squared hourly returns, added up per day."""
    times, bars = _parquet(path)
    days = times.astype("datetime64[D]")
    begins = np.concatenate([[True], days[1:] != days[:-1]])
    previous = np.concatenate([[np.nan], bars[3][:-1]])
    inside = np.where(begins, np.log(bars[3] / bars[0]), np.log(bars[3] / previous))
    gap = np.where(begins, np.log(bars[0] / previous), 0.0)
    starts = np.flatnonzero(begins)
    total = np.add.reduceat(inside**2 + gap**2, starts)
    total[days[starts] < _CLEAN_BARS] = np.nan
    known = dict(zip(days[starts].tolist(), total.tolist(), strict=True))
    return np.array([known.get(day, np.nan) for day in dates.tolist()])


def load_series(folder: str | Path) -> tuple[list[Series], dict[str, str]]:
    """Every series of the study and the SHA-256 of every file.

    Parameters
    ----------
    folder : str or Path
        Holds the files of :data:`FILES`.

    Returns
    -------
    series : list of Series
        The S&P 500 (closes), 20 stocks (closes), Nasdaq, S&P 500, SPY and QQQ (bars). S&P 500, its bars and SPY are
        one market.
    hashes : dict of str to str
        By file name.

    Raises
    ------
    DataConversionError
        When a file is missing or holds a price that breaks its rule.
    """
    root = Path(folder)
    hashes = {}
    for name in FILES:
        path = root / name
        if not path.is_file():
            raise DataConversionError(f"`data` must hold {name}, {root} does not")
        hashes[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    series = []
    _, rows = _csv(root / FILES[0])
    dates = np.array([row[0] for row in rows], dtype="datetime64[D]")
    series.append(_from_closes("S&P 500", "index closes", dates, np.array([float(row[1]) for row in rows])))
    head, rows = _csv(root / FILES[1])
    dates = np.array([row[0] for row in rows], dtype="datetime64[D]")
    closes = np.array([[float(text) for text in row[1:]] for row in rows])
    series += [_from_closes(name, "stocks", dates, closes[:, k]) for k, name in enumerate(head[1:])]
    for name, file in (("Nasdaq", FILES[2]), ("S&P 500 bars", FILES[3])):
        _, rows = _csv(root / file)
        dates = np.array([datetime.strptime(row[0], "%m/%d/%Y") for row in rows], dtype="datetime64[D]")
        series.append(_from_bars(name, dates, np.array([[float(text) for text in row[1:5]] for row in rows]).T))
    for name, file, dropped in (("SPY", FILES[4], ()), ("QQQ", FILES[5], _QQQ_DROPPED)):
        times, bars = _parquet(root / file)
        one = _from_bars(name, times.astype("datetime64[D]"), bars, dropped, _CLEAN_BARS)
        if name == "SPY":
            one = replace(one, intraday=_hourly(root / FILES[6], one.dates))
        series.append(one)
    return series, hashes


def simulated_series(seed: int, periods: int, *, bars: bool = False) -> Series:
    """A GJR path with Student innovations: for golden rows and tests, where no market data may ship.

    Parameters
    ----------
    seed, periods : int
    bars : bool
        Also give a measured variance: the true one times a unit-mean gamma variate.
    """
    rng = np.random.default_rng(seed)
    z = rng.standard_t(6, periods) * np.sqrt(4.0 / 6.0)
    h = 1e-4
    returns, truth = np.empty(periods), np.empty(periods)
    for t in range(periods):
        truth[t] = h
        returns[t] = np.sqrt(h) * z[t]
        h = 2e-6 + (0.03 + (0.12 if z[t] < 0.0 else 0.0)) * returns[t] ** 2 + 0.89 * h
    none = np.full(periods, np.nan)
    measured = truth * rng.gamma(4.0, 0.25, periods) if bars else none
    dates = np.datetime64("1990-01-01") + np.arange(periods)
    return Series(f"simulated {seed}", "simulated", dates, np.maximum(returns, -0.9), measured, none)
