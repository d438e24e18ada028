"""How smallworld's weights were made: `python -m perdure.smallworld.train`."""
