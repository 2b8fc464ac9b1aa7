"""The stage `ip-adapter`: attentions to a picture learn to say what is in it; the U-Net and the encoder stay."""
