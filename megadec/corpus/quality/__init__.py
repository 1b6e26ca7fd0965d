"""Which documents are worth learning: rules over characters, lines and n-grams."""
