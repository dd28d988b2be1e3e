"""Colours shared by the page and the picture, and the style sheet of the page."""

from __future__ import annotations

INK = "#0f172a"
MUTED = "#64748b"
FAINT = "#94a3b8"
GRID = "#e8edf3"
PAPER = "#ffffff"
CANVAS = "#f5f7fa"
BORDER = "#dde3ea"
LINE = "#1d4ed8"
LINE_SOFT = "#dbe6fb"
GAIN = "#0f8a5f"
LOSS = "#c2312f"
LOSS_SOFT = "#f7dddc"
WARN = "#b7791f"
WARN_SOFT = "#fdf6e3"
RIVAL = "#7c8aa0"

FONT = "Inter, 'Segoe UI', system-ui, -apple-system, 'Helvetica Neue', Arial, sans-serif"

CSS = f"""
*{{box-sizing:border-box}}
html{{-webkit-text-size-adjust:100%}}
body{{margin:0;background:{CANVAS};color:{INK};font:14px/1.5 {FONT}}}
main{{max-width:1240px;margin:0 auto;padding:28px 24px 48px}}
header{{border-bottom:3px solid {LINE};padding-bottom:16px;margin-bottom:20px}}
h1{{font-size:26px;line-height:1.25;margin:0 0 14px;letter-spacing:-.01em;overflow-wrap:anywhere}}
h2{{font-size:17px;margin:0 0 6px}}
h3{{font-size:14px;margin:4px 0 6px}}
section{{background:{PAPER};border:1px solid {BORDER};border-radius:8px;padding:18px 20px;margin:0 0 18px}}
.provenance{{display:flex;flex-wrap:wrap;gap:8px 28px;margin:0}}
.provenance div{{min-width:0}}
dt{{font-size:11px;text-transform:uppercase;letter-spacing:.05em;color:{MUTED}}}
dd{{margin:0;overflow-wrap:anywhere;font-variant-numeric:tabular-nums}}
.notes{{background:{WARN_SOFT};border:1px solid #ecd9a0;
  border-left:5px solid {WARN};border-radius:8px;padding:14px 20px;margin:0 0 18px}}
.notes ul{{margin:4px 0 8px;padding-left:20px;font-size:15px}}
.notes p{{margin:0;color:#6b5416}}
.notes li{{overflow-wrap:anywhere}}
.cards{{display:grid;grid-template-columns:repeat(auto-fit,minmax(210px,1fr));gap:12px;margin:0 0 18px}}
.card{{background:{PAPER};border:1px solid {BORDER};border-radius:8px;padding:12px 16px}}
.label{{font-size:11px;text-transform:uppercase;letter-spacing:.05em;color:{MUTED}}}
.value{{font-size:22px;font-weight:650;font-variant-numeric:tabular-nums;margin:2px 0;overflow-wrap:anywhere}}
.detail,.quiet,.lead{{color:{MUTED};font-size:12.5px}}
.lead{{margin:0 0 10px}}
.gain{{color:{GAIN}}}.loss{{color:{LOSS}}}
.two{{display:grid;grid-template-columns:minmax(0,1fr) minmax(0,1fr);gap:24px}}
@media (max-width:860px){{.two{{grid-template-columns:minmax(0,1fr)}}main{{padding:16px 12px}}}}
.chart{{width:100%;min-height:180px}}
.scroll{{overflow:auto;max-height:460px;border:1px solid {BORDER};border-radius:6px;margin:6px 0}}
table{{border-collapse:collapse;width:100%;font-size:13px;font-variant-numeric:tabular-nums}}
thead th{{position:sticky;top:0;background:#eef2f7;font-size:12px;white-space:nowrap}}
th,td{{text-align:left;padding:5px 10px;border-bottom:1px solid {GRID};vertical-align:top}}
td{{overflow-wrap:anywhere}}
td.n,th.n{{text-align:right;white-space:nowrap}}
.facts th{{font-weight:500;color:{MUTED};width:38%}}
pre{{background:#f8fafc;border:1px solid {BORDER};border-radius:6px;padding:12px 14px;overflow:auto;
  max-height:520px;font:12px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}}
.download{{display:inline-block;margin-top:4px;color:{LINE};font-size:13px}}
footer{{color:{MUTED};font-size:12px}}
@media print{{body{{background:#fff}}
  section,.card,.notes{{break-inside:avoid}}
  .scroll,pre{{max-height:none;overflow:visible}}}}
"""
