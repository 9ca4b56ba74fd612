"""`report.html`: one self-contained page on what a run learned, pictures first."""

from calotype.inspection.report.writing import write_progress_report, write_report

__all__ = ["write_progress_report", "write_report"]
