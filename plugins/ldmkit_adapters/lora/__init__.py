"""Changes of weights: LoRA, LoCon, LoHa, LoKr, DoRA and full differences, attached to layers or fused into them."""
