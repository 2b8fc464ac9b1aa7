"""The stage `controlnet`: a copy of the U-Net's first half learns to follow hints; the U-Net stays as it is."""
