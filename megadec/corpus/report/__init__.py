"""What happened to the text of a run, counted by name."""
