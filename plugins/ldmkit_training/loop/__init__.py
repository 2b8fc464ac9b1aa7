"""The training loop: steps, their state, and checkpoints that a run goes on from bit for bit."""
