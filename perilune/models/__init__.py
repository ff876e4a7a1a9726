"""What engines and trainer share of a model: its tokenizer and chat template, what it has to show."""
