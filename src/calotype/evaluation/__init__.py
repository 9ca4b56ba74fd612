"""Scores from pictures and features alone: own-concept retrieval, near-copies, distances between sets."""

from calotype.evaluation.distances import frechet_distance, kernel_distance
from calotype.evaluation.memorization import NearCopies, near_copies
from calotype.evaluation.retrieval import Retrieval, own_concept

__all__ = ["NearCopies", "Retrieval", "frechet_distance", "kernel_distance", "near_copies", "own_concept"]
