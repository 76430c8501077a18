"""Byte ranges and downloads: retried, signed, and limited per host."""
