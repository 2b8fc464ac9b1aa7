"""The training loop: steps, their state, and checkpoints from which a run resumes bit for bit."""
