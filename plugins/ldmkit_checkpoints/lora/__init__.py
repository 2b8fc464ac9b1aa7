"""Files of changes to weights: LoRA and LyCORIS in the dialects of kohya's scripts, diffusers and peft."""
