"""A network as a folder that runs elsewhere."""

from ofa.export.bundle import Bundle, BundleInfo, load_bundle
from ofa.export.write import ExportReport, export_bundle

__all__ = ["Bundle", "BundleInfo", "ExportReport", "export_bundle", "load_bundle"]
