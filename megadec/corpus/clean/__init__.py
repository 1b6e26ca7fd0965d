"""Raw text of a source -> plain text a model may learn from: wikitext, conversion markup, variants, width."""
