"""What a single file is, told from its keys, shapes and metadata."""
