"""Scores from pictures and features alone: reconstruction, own-concept retrieval, near-copies."""

from calotype.evaluation.memorization import NearCopies, near_copies
from calotype.evaluation.reconstruction import psnr, ssim
from calotype.evaluation.retrieval import Retrieval, own_concept

__all__ = ["NearCopies", "Retrieval", "near_copies", "own_concept", "psnr", "ssim"]
