"""Training: recipes, data, stages and their objectives, and checkpoints that resume bit for bit."""
