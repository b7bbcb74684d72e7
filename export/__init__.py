"""From a PyTorch checkpoint to a bundle that runs without PyTorch, and to further precisions: `export_bundle`."""

from export.bundle import export_bundle

__all__ = ["export_bundle"]
