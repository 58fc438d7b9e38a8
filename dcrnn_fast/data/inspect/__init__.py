"""Reports on data before training: base rates, ids that training did not see, leaks, and the draft of a schema."""
