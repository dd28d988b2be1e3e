"""Writes what tick_signal reads: the compiled model, its features and the ticks of the shipped sample.

python examples/c/prepare.py [--out out/c] [--model models/lstm_btcusdt] [--day 20240719] [--limit N]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tengri_fast.features import parse_spec
from tengri_fast.inference import Model
from tengri_fast.market import merge_order, read_quotes, read_trades
from tengri_fast.runtime.model_spec import load_model_spec

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SAMPLE = REPOSITORY / "data" / "binance_usdm_btcusdt"


def write_features(model: Path, out: Path) -> None:
    """One line per feature: name, parameters as the C table stores them, normalisation."""
    spec = load_model_spec(model)
    normalisation = spec.normalisation
    lines = ["name,p0,p1,p2,p3,mean,scale,clip"]
    for text, mean, scale in zip(spec.inputs.features, normalisation.mean, normalisation.scale, strict=True):
        feature = parse_spec(text)
        if feature.clock.kind != "event" or feature.stages or feature.legs or feature.sources:
            raise SystemExit(f"{text}: this example reads features of the event clock without stages")
        values = (*feature.values, 0.0, 0.0, 0.0, 0.0)[:4]
        lines.append(",".join([feature.name, *map(repr, (*values, mean, scale, normalisation.clip))]))
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_ticks(day: str, limit: int | None, out: Path) -> None:
    """Quotes and trades in the order in which they are seen; numbers in the shortest text that reads back exactly."""
    quotes = read_quotes(SAMPLE / f"binance_usdm_btcusdt_{day}.quotes.parquet")
    trades = read_trades(SAMPLE / f"binance_usdm_btcusdt_{day}.trades.parquet")
    columns = (quotes.ts_event, quotes.bid_price, quotes.ask_price, quotes.bid_size, quotes.ask_size)
    quote_rows = list(zip(*(column.tolist() for column in columns), strict=True))
    columns = (trades.ts_event, trades.price, trades.size, trades.aggressor)
    trade_rows = list(zip(*(column.tolist() for column in columns), strict=True))
    order = merge_order(trades.ts_init, quotes.ts_init)
    kinds, streams = ("trade", "quote"), (trade_rows, quote_rows)
    pairs = list(zip(order.source.tolist(), order.row.tolist(), strict=True))[:limit]
    lines = ["kind,ts,values"]
    lines += [",".join([kinds[source], *map(repr, streams[source][row])]) for source, row in pairs]
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Writes the compiled model, its features and the ticks.")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "out" / "c", help="folder (out/c)")
    parser.add_argument("--model", type=Path, default=REPOSITORY / "models" / "lstm_btcusdt", help="folder of a model")
    parser.add_argument("--day", default="20240719", help="day of the shipped sample (20240719)")
    parser.add_argument("--limit", type=int, help="only so many ticks")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    Model.from_onnx(options.model / load_model_spec(options.model).onnx).save(options.out / "model.tgp")
    write_features(options.model, options.out / "features.csv")
    write_ticks(options.day, options.limit, options.out / "ticks.csv")
    print(f"{options.out}: model.tgp, features.csv, ticks.csv")


if __name__ == "__main__":
    main()
