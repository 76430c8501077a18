"""What needs a Google Cloud client besides storage: runs that messages start, and what becomes of them.

Nothing here imports Beam, rasterio or numpy: the functions load it at a cold start.
"""
