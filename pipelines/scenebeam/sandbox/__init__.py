"""A small synthetic Earth: Sentinel-2-like scenes whose every pixel is known, as STAC items and COGs."""
