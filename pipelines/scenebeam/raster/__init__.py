"""The pixel world: no STAC, no Beam, no storage layout."""
