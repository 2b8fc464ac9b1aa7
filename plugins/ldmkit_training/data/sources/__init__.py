"""Sources of training data: folders, annotation files and archives, and sources made of other sources."""
