"""Compares the Ray in an image or a `pip install` with the Ray that is installed here: all nodes must have the same."""

import re
from importlib.metadata import PackageNotFoundError, version

from grndist.launch.cluster_files.problems import ClusterFileError

RAYS_OWN = {"ray", "ray-ml", "ray-llm"}
RELEASE = r"(\d+\.\d+\.\d+\w*)"


def ray_version() -> str:
    """The version of Ray that is installed here, as requirements.lock has it.

    Raises:
        ClusterFileError: there is none to compare with.
    """
    try:
        return version("ray")
    except PackageNotFoundError:
        raise ClusterFileError(
            "Ray is not installed, so there is no version to compare with; pip install 'grndist[cluster]'"
        ) from None


def in_image(place: str, image: object) -> list[str]:
    """The problem of an image whose tag names another Ray than the one here, or no version at all."""
    if not isinstance(image, str):
        return []
    name, colon, tag = image.partition("@")[0].rpartition("/")[2].partition(":")
    if "@" not in image and (not colon or tag in {"latest", "nightly"}):
        return [f"{place}: {image!r} is another image tomorrow; give a tag with its Ray, e.g. :{ray_version()}-py311"]
    found = re.search(rf"(?:^|[-_.])ray-?v?{RELEASE}", tag) or (re.match(RELEASE, tag) if name in RAYS_OWN else None)
    return _compared(place, image, found[1] if found else ray_version())


def in_command(place: str, command: str) -> list[str]:
    """The problem of a `pip install ray==` of another version than the one here."""
    found = re.search(rf"\bray(?:\[[\w,-]*\])?=={RELEASE}", command)
    return _compared(place, found[0], found[1]) if found else []


def given(place: str, value: object) -> list[str]:
    """The problem of a version that is not that of the Ray here."""
    if value is None:
        return [f"{place}: missing; give {ray_version()!r}, the Ray that grndist was tested with"]
    return _compared(place, str(value), str(value))


def _compared(place: str, shown: str, ray: str) -> list[str]:
    if ray == ray_version():
        return []
    return [f"{place}: {shown!r} has Ray {ray}, and {ray_version()} is installed here; all nodes need the same version"]
