"""The frozen pipelines."""
