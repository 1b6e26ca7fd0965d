"""Texts that are in a data set, or in another one, more than once."""
