"""Pictures to feature vectors, for scores."""

from calotype.features.extractors import EXTRACTORS, FeatureExtractor, load_extractor

__all__ = ["EXTRACTORS", "FeatureExtractor", "load_extractor"]
