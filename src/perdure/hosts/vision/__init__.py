"""The frozen vision towers."""
