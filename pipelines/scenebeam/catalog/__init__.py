"""The metadata world: no pixels, no Beam."""
