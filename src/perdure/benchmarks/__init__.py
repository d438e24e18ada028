"""Streams of concepts, and runs of methods over them."""
