"""From a count matrix to batches: sources, the Zarr store, the plan of a run and the loader."""
