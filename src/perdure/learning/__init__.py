"""Pictures, latents, objective, loop, concept."""
