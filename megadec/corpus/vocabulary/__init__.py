"""The vocabulary of the tokenizer: learned from documents, judged on held-out ones."""
