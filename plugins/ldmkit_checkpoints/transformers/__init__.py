"""transformers' text encoders: config.json and keys, read and written."""
