"""The one version, and the versions of the packages that results depend on."""

from importlib import metadata

__version__ = "0.1.0"


def versions(*packages: str) -> dict[str, str]:
    """Return sagan's version and those of installed packages, by name.

    A checkout that is not installed has no metadata of its own, and the distribution's name is `sagan-torch`.
    """
    return {"sagan": __version__} | {name: metadata.version(name) for name in packages}
