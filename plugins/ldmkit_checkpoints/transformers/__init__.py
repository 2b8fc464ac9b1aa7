"""transformers' text models: config.json and tokenizer files, read and written."""
