"""Scores from pictures and features alone, each with its interval: distances, support, retrieval, memorisation."""

from calotype.evaluation.distances import (
    Frechet,
    estimate_frechet,
    estimate_kernel_distance,
    frechet_distance,
    kernel_distance,
)
from calotype.evaluation.estimates import Estimate, normal_estimate, share_estimate
from calotype.evaluation.memorization import Memorization, judge, memorization
from calotype.evaluation.retrieval import Agreement, Retrieval, class_agreement, own_concept
from calotype.evaluation.support import Support, support

__all__ = [
    "Agreement",
    "Estimate",
    "Frechet",
    "Memorization",
    "Retrieval",
    "Support",
    "class_agreement",
    "estimate_frechet",
    "estimate_kernel_distance",
    "frechet_distance",
    "judge",
    "kernel_distance",
    "memorization",
    "normal_estimate",
    "own_concept",
    "share_estimate",
    "support",
]
