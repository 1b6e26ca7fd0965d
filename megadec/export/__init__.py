"""Checkpoint -> files that others can load: Hugging Face folders and megadec folders, proved before they are named."""
