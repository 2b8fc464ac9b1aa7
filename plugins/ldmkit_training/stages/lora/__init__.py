"""The stage `lora`: changes of a pipeline's weights of low rank, and nothing else, are trained and saved."""
