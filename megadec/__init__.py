"""megadec: Chinese text from raw dump to a served decoder. The packages in alphabetical order are the data flow."""

__version__ = "0.1.0"
