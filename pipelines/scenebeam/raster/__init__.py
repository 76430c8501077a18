"""Pixels: reading, checking, composing and encoding rasters. No STAC, no Beam, no storage."""
