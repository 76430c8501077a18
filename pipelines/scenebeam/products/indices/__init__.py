"""Indices: band math over an area, one COG per scene, acquisition, day, month or quarter."""
