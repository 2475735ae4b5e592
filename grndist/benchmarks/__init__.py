"""Many methods on the same data, and one table of what came of them."""
