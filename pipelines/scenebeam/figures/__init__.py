"""Figures: maps and charts as SVG, for the report and for notebooks."""
