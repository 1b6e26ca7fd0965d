"""megadec: Chinese text from raw dump to a served decoder. Read the packages in alphabetical order: it is the data flow."""

__version__ = "0.1.0"
