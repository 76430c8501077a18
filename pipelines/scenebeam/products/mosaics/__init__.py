"""Mosaics: for every acquisition and band one COG on the run's grid, and a STAC item."""
