"""What a template shows, by tables from its name to a rule."""
