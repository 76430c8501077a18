"""A synthetic Earth with known pixels: scenes as STAC items and COGs, a range server, demos."""
