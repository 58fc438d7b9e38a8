"""How a cell becomes a number: ids of texts, buckets and values of numbers."""
