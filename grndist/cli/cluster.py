"""The commands of `grndist cluster`, about files that start one."""

from pathlib import Path
from typing import Annotated

import typer


def check(
    files: Annotated[list[Path], typer.Argument(help="files of `ray up`, RayJobs of KubeRay, sbatch scripts")],
) -> None:
    """Look over files that start a Ray cluster, offline, and name every mistake."""
    from grndist.launch.cluster_files import checked

    print("\n".join(checked(files)))
