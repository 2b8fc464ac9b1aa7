"""Training of both stages: recipes, data, objectives, checkpoints that resume bit for bit."""
