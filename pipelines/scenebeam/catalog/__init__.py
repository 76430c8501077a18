"""STAC search, scenes and their selection. No pixels and no Beam."""
