"""What a user would build instead: servers of the same catalogue, each in its own idiom."""
