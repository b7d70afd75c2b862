"""Recipes of the proof's bundles: what all share, and a file for each family that came later."""

from tests.host.recipes.recipe import CALM, Recipe

__all__ = ["CALM", "Recipe"]
