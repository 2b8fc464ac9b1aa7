"""Watching a run: progress, log and trackers, previews, and the probe of what each condition does."""
