"""What a person should know of data: base rates, ids that training did not see, leaks, and the draft of a schema."""
