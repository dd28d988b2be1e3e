"""How many decimals the numbers of a CSV file have, read from their text and not guessed from a few rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from tengri_fast.errors import DataConversionError

__all__ = ["csv_header", "csv_precisions"]

_MOST = 16  # decimals that NautilusTrader can hold


def csv_header(path: Path) -> list[str]:
    """Names of the columns of a CSV file, which may be compressed by gzip (".gz").

    Raises
    ------
    DataConversionError
        The file is empty or not text.
    """
    try:
        with pa.input_stream(str(path), compression="detect") as stream:
            head = stream.read(1 << 16)
        line = head.split(b"\n", 1)[0].decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataConversionError(f"`path` must be a CSV file, {path.name} is not: {error}") from None
    if not line:
        raise DataConversionError(f"`path` must begin with a line of column names, {path.name} does not")
    return [name.strip().strip('"') for name in line.split(",")]


def csv_precisions(path: Path, groups: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """The most decimals that any number of a group of columns has.

    Parameters
    ----------
    path : Path
        A CSV file with a header, plain or ".gz".
    groups : mapping of str to sequence of str
        Name of a group to its columns.

    Returns
    -------
    dict of str to int
        0 to 16 for each group. "9600.50" has two decimals and "1e-7" has seven; an empty field has none.

    Raises
    ------
    DataConversionError
        A field is not a number or has more than 16 decimals, or the rows do not fit the header.
    """
    columns = list(dict.fromkeys(name for names in groups.values() for name in names))
    most = dict.fromkeys(columns, 0)
    options = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(columns, pa.string()), include_columns=columns, strings_can_be_null=False
    )
    try:
        with pa.input_stream(str(path), compression="detect") as stream:
            for batch in pa.csv.open_csv(stream, convert_options=options):
                for name in columns:
                    most[name] = max(most[name], _decimals(path, name, batch.column(name)))
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise DataConversionError(f"`path` must be a CSV file with one width, {path.name} is not: {error}") from None
    return {group: max((most[name] for name in names), default=0) for group, names in groups.items()}


def _decimals(path: Path, name: str, texts: pa.Array) -> int:
    plain = pc.match_substring_regex(texts, r"^[+-]?[0-9]*(\.[0-9]*)?$")
    point = pc.find_substring(texts, ".")
    after = pc.subtract(pc.subtract(pc.binary_length(texts), point), 1)
    found = pc.max(pc.if_else(pc.and_(plain, pc.greater_equal(point, 0)), after, 0)).as_py() or 0
    for text in set(pc.filter(texts, pc.invert(plain)).to_pylist()):
        try:
            number = Decimal(text.strip())
        except InvalidOperation:
            raise DataConversionError(f"`{name}` of {path.name} must hold numbers, held {text!r}") from None
        if not number.is_finite():
            raise DataConversionError(f"`{name}` of {path.name} must hold finite numbers, held {text!r}")
        found = max(found, -int(number.as_tuple().exponent))
    if found > _MOST:
        raise DataConversionError(f"`{name}` of {path.name} must have at most {_MOST} decimals, had {found}")
    return int(found)
