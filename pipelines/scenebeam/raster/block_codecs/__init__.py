"""Codecs that products may be compressed with: one module each, named as in requests.

The names are those of GDAL's creation option COMPRESS, in lower case. Each module has its Codec as
CODEC.
"""
