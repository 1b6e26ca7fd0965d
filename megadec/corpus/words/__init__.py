"""Words: statistics of a corpus, vectors, and what both stand on, the cut of a text into words."""
