"""One call of a pipeline, in reading order: request, inputs, conditioning, denoise, guards, latents, output, recipe."""
