"""Tiny autoencoders as TAESD publishes them: two files, encoder and decoder."""
