"""Scores from pictures and features alone: own-concept retrieval, near-copies."""

from calotype.evaluation.memorization import NearCopies, near_copies
from calotype.evaluation.retrieval import Retrieval, own_concept

__all__ = ["NearCopies", "Retrieval", "near_copies", "own_concept"]
