"""Image prompts (IP-Adapter): attention to tokens of pictures beside that to a text's."""
