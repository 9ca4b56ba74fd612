"""The lab: which way of drawing suits a trained model best."""

from calotype.inspection.lab.trials import RECORD, sweep
from calotype.inspection.lab.words import summary, table

__all__ = ["RECORD", "summary", "sweep", "table"]
