"""What every room needs: errors, whole files, configuration, ranks, logging, the tokenizer at run time."""
