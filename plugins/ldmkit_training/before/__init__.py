"""Before a run: the recipe, its plan, and the checks made before the first step."""
