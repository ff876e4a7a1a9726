"""Keys and values in pages: the layout for a card, where rows of all lengths share one pass, and memory is bounded."""
