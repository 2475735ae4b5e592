"""Where work runs beyond this process: on the workers of a Ray or Dask cluster. The home of both."""
