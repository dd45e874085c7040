"""One file per model family: what makes it different."""
