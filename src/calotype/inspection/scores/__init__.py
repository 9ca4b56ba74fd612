"""What a model's pictures are worth, in numbers with intervals: `calotype evaluate`."""

from calotype.inspection.scores.record import RECORD, evaluate, read_scores

__all__ = ["RECORD", "evaluate", "read_scores"]
