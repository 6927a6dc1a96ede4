"""Pictures of a run: pure figure functions, and thin controls over them."""
