"""The stage `dreambooth`: a LoRA of one subject, beside pictures of its class that the model draws itself."""
