"""smallworld-flow, a small Stable Diffusion 3: `python -m perdure.smallworld.flow`."""
