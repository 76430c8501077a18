"""Stacks: for every scene its bands on one grid, as a VRT over files or as one COG."""
