"""The monthly panel FRED-MD, each value from when it was published.

The panel's date is the month a value is about. It was published later, and how much later depends on who publishes it,
so each series has a lag in whole days after the end of its month; the value exists from midnight UTC at the end of
that day.

The table below is ours. It follows the publishers' usual calendars (employment report in the first fortnight, prices,
production, retail sales and housing in the middle, income and spending at the end of the next month, orders a week and
inventories a fortnight after that, consumer credit in the first week and the H.6, H.8 and H.15 releases weekly or
daily) and is on the late side of them. Employment, consumer prices and producer prices cover the shutdown of October
2013 (reports of 22, 30 and 29 October); no table of this kind covers every delay in the history, so give `lag_days`
for a lag of your own. What is not in the table takes `DEFAULT_LAG_DAYS`.

A file is one vintage: its values carry every revision made until it was written. The times are right, the values are
what was known later. Only rates and prices of markets are not revised.
"""

from __future__ import annotations

import datetime
import itertools
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError, FeatureExtractionError
from tengri_fast.features.external.common import DAY_NS, StrPath, csv_rows, number_of_text
from tengri_fast.features.external.macro import TRANSFORMS, MacroEconomic
from tengri_fast.market.columns import ExternalColumns

__all__ = [
    "DEFAULT_LAG_DAYS",
    "LAG_GROUPS",
    "FredMd",
    "fred_md_series",
    "lag_days_of",
    "publication_ns",
    "read_fred_md",
]

DEFAULT_LAG_DAYS = 75
_LONGEST_LAG_DAYS = 3650


class LagGroup(NamedTuple):
    """Days from the end of the month to the publication, for the series whose name matches entirely."""

    days: int
    pattern: str
    what: str


LAG_GROUPS: tuple[LagGroup, ...] = (
    LagGroup(5, "FEDFUNDS|CP3Mx|TB[36]MS|GS[0-9]+|AAA|BAA|COMPAPFFx|.*FFM|S&P 500|S&P: indust|VIXCLSx|EX[A-Z]+x"
                "|OILPRICEx", "market rates and prices, averages of the month"),
    LagGroup(10, "TWEX.*", "trade-weighted dollar"),
    LagGroup(14, "CLAIMSx", "weekly jobless claims"),
    LagGroup(21, "BUSLOANS|REALLN|INVEST", "bank credit, H.8"),
    LagGroup(24, "CLF16OV|CE16OV|UNRATE|UEMP.*|PAYEMS|USGOOD|CES.*|USCONS|MANEMP|DMANEMP|NDMANEMP|SRVPRD|USTPU|USWTRADE"
                 "|USTRADE|USFIRE|USGOVT|AWOTMAN|AWHMAN", "employment report"),
    LagGroup(31, "INDPRO|IP.*|CUMFNS|CAPUTL.*", "industrial production, G.17"),
    LagGroup(31, "HOUST.*|PERMIT.*", "housing starts and permits"),
    LagGroup(31, "RETAILx", "retail sales"),
    LagGroup(31, "WPS.*|PPI.*|CPI.*|CUSR.*|CUUR.*", "producer and consumer prices"),
    LagGroup(31, "M[12]SL|BOGMBASE|AMBSL|TOTRESNS|NONBORRES", "money stock and reserves, H.6 and H.3"),
    LagGroup(31, "UMCSENTx", "consumer sentiment; public with a month's delay"),
    LagGroup(40, "RPI|W875RX1|DPCERA.*|PCEPI|D[A-Z]{3}RG.*", "personal income, spending and its prices"),
    LagGroup(40, "ACOGNO|AMDMNOx|ANDENOx|AMDMUOx", "manufacturers' orders"),
    LagGroup(45, "M2REAL|NONREVSL|CONSPI", "consumer credit, and ratios that wait for income or prices"),
    LagGroup(50, "BUSINVx|ISRATIOx", "business inventories"),
    LagGroup(56, "HWI|HWIURATIO", "help wanted, from the survey of job openings"),
    LagGroup(75, "CMRMTSPLx|DTC.*", "real trade sales; finance companies"),
    LagGroup(100, "S&P div yield|S&P PE ratio", "needs the reported dividends and earnings"),
)  # fmt: skip


def lag_days_of(series: str) -> int:
    """Days from the end of a month to the publication of its value, by the table `LAG_GROUPS`."""
    return next((group.days for group in LAG_GROUPS if re.fullmatch(group.pattern, series)), DEFAULT_LAG_DAYS)


def publication_ns(year: int, month: int, lag_days: int) -> int:
    """When the value for a month exists: midnight UTC after the last day of the lag, in ns.

    Raises
    ------
    FeatureExtractionError
        If the lag is not from 1 to 3,650 days: a value is never published within its month.
    """
    if not isinstance(lag_days, int) or not 1 <= lag_days <= _LONGEST_LAG_DAYS:
        raise FeatureExtractionError(f"`lag_days` must be from 1 to {_LONGEST_LAG_DAYS}, was {lag_days!r}")
    first_of_next = datetime.date(year + month // 12, month % 12 + 1, 1)
    return ((first_of_next - datetime.date(1970, 1, 1)).days + lag_days) * DAY_NS


class FredMd(NamedTuple):
    """A panel as the file holds it.

    Attributes
    ----------
    months : tuple of (int, int) [n]
        Year and month that each row is about, ascending.
    transforms : mapping of str to int
        Transform code of each series.
    levels : mapping of str to float64 [n]
        NaN where the file has none.
    """

    months: tuple[tuple[int, int], ...]
    transforms: Mapping[str, int]
    levels: Mapping[str, npt.NDArray[np.float64]]


def read_fred_md(path: StrPath) -> FredMd:
    """A FRED-MD file (.csv or .csv.gz): a header, a row of transform codes, then a row for each month.

    Raises
    ------
    DataConversionError
        If it is not such a file, or its months do not follow one another.
    """
    file = Path(path)
    if not file.is_file():
        raise DataConversionError(f"`path` must be a file, was {file}")
    rows = csv_rows(file)
    header = rows[0]
    if header[0] != "sasdate" or len(header) < 2 or len(set(header)) != len(header):
        raise DataConversionError(f"`path` must be a FRED-MD file whose first column is sasdate, {file.name} has "
                                  f"{header[0]!r:.60}")  # fmt: skip
    if len(rows) < 2 or not rows[1][0].lower().startswith("transform"):
        raise DataConversionError(f"the second line of {file.name} must hold the transform codes")
    for line, row in enumerate(rows[1:], 2):
        if len(row) != len(header):
            raise DataConversionError(f"line {line} of {file.name} must have {len(header)} cells, had {len(row)}")
    codes = {}
    for series, cell in zip(header[1:], rows[1][1:], strict=True):
        code = number_of_text(cell)
        if code not in TRANSFORMS:
            raise DataConversionError(f"transform code of {series} must be from 1 to 7, was {cell!r:.60}")
        codes[series] = int(code)
    body = [row for row in rows[2:] if any(row)]
    months = [_month(row[0], file.name) for row in body]
    for (year, month), later in itertools.pairwise(months):
        if later != (year + month // 12, month % 12 + 1):
            raise DataConversionError(
                f"months of {file.name} must follow one another, {later} came after {(year, month)}"
            )
    grid = np.array([[number_of_text(cell) if cell else math.nan for cell in row[1:]] for row in body], np.float64)
    grid = grid.reshape(len(body), len(codes))
    levels = {series: np.ascontiguousarray(grid[:, i]) for i, series in enumerate(codes)}
    return FredMd(tuple(months), codes, levels)


def _month(cell: str, name: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,2})/[0-9]{1,2}/([0-9]{4})", cell)
    if found is None or not 1 <= int(found[1]) <= 12 or int(found[2]) < 1900:
        raise DataConversionError(f"`sasdate` of {name} must be month/day/year, was {cell!r:.60}")
    return int(found[2]), int(found[1])


def fred_md_series(
    panel: FredMd | StrPath,
    series: str,
    *,
    forecast: str = "ar1",
    transform: int | None = None,
    lag_days: int | None = None,
    delay_ns: int = 0,
) -> tuple[MacroEconomic, ExternalColumns]:
    """A series of the panel as a source, and its history as observations.

    Parameters
    ----------
    panel : FredMd or path
    series : str
        Column of the file, such as "PAYEMS".
    forecast : {"ar1", "random_walk"}
        The file has no survey. ("given" is possible with `transform` 1 and leaves the forecast NaN.)
    transform : int, optional
        The file's code for the series if None.
    lag_days : int, optional
        Days from the end of the month to the publication; of the table if None.
    delay_ns : int
        From publication to receipt.

    Returns
    -------
    source : MacroEconomic
        After the history, ready for `push` of the next release.
    columns : ExternalColumns
        One observation for each month with a value; months published before 1970 only feed the forecast.

    Raises
    ------
    DataConversionError
        If there is no such series.
    """
    found = panel if isinstance(panel, FredMd) else read_fred_md(panel)
    if series not in found.levels:
        raise DataConversionError(f"`series` must be a column of the panel, was {series!r}")
    source = MacroEconomic(series, forecast=forecast,
                           transform=found.transforms[series] if transform is None else transform)  # fmt: skip
    lag = lag_days_of(series) if lag_days is None else lag_days
    times = np.array([publication_ns(year, month, lag) for year, month in found.months], np.int64)
    levels = found.levels[series]
    # A time before 1970 has no place in unsigned ns. Those months only teach, in their order, in the first ns of 1970.
    early = int(np.count_nonzero(times < len(times)))
    for order, level in enumerate(levels[:early].tolist()):
        source.push(order, level)
    return source, source.observations(times[early:], levels[early:], delay_ns=delay_ns)
