"""Prompts to pictures, batched."""
