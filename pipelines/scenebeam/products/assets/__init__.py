"""Assets: the scenes' own files, with a manifest and a STAC item per scene."""
