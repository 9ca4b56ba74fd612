"""Recipes: typed configs composed. Nothing runs here."""

from calotype.recipes.calotype import calotype
from calotype.recipes.recipe import Recipe, get_recipe

__all__ = ["Recipe", "calotype", "get_recipe"]
