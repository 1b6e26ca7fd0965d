"""Exported files to answers."""
