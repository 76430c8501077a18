"""Cubes: outputs and requests as lazy xarray Datasets. All but this module import xarray."""
