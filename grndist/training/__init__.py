"""The loop and its checkpoints. Knows nothing of MLflow, Zarr or model kinds."""
