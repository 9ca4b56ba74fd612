"""Pictures to feature vectors, for scores, and to feature maps, for a loss."""

from calotype.features.cache import cached_features
from calotype.features.extractors import EXTRACTORS, FeatureExtractor, load_extractor
from calotype.features.maps import FEATURE_MAPS, FeatureMaps, check_feature_maps, load_feature_maps, perceptual_distance

__all__ = [
    "EXTRACTORS",
    "FEATURE_MAPS",
    "FeatureExtractor",
    "FeatureMaps",
    "cached_features",
    "check_feature_maps",
    "load_extractor",
    "load_feature_maps",
    "perceptual_distance",
]
