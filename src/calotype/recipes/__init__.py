"""Recipes: typed configs composed. Nothing runs here."""

from calotype.recipes.calotype import calotype
from calotype.recipes.recipe import Recipe, SamplingSection, get_recipe

__all__ = ["Recipe", "SamplingSection", "calotype", "get_recipe"]
