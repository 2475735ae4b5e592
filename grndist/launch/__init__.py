"""Where work runs beyond this process: on the workers of a Ray or Dask cluster. The home of both."""

from grndist.launch.tasks import distributed, on_ray, scheduler

__all__ = ["distributed", "on_ray", "scheduler"]
