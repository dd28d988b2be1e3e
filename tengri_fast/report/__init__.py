"""Reports: what a run did, how good its signals were, what the gate refused, how fast it was.

:class:`RunRecord` holds a run as plain arrays, :mod:`tengri_fast.report.skill` measures signals, and
:func:`write_report` and :func:`terminal_summary` show both. Only drawing needs the ``report`` extra.
"""

from __future__ import annotations

from tengri_fast.report.record import TABLES, Denial, Latency, RunRecord
from tengri_fast.report.skill import Skill
from tengri_fast.report.terminal import terminal_summary
from tengri_fast.report.write import summary, write_report

__all__ = ["TABLES", "Denial", "Latency", "RunRecord", "Skill", "summary", "terminal_summary", "write_report"]
