"""Run unikernels as Kubernetes pods: a containerd shim, one asyncio service per node."""

#: The distribution's version too (pyproject.toml reads it), so that a checkout that is not installed knows its own.
__version__ = "0.1.0"
