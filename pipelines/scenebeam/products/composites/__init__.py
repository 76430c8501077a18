"""Composites: one cloud-free image per period, masked pixel by pixel."""
