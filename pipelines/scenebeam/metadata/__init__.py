"""STAC items and the tables of them."""
