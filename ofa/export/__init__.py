"""A network as a folder that runs elsewhere."""

from ofa.common.expectation import MetricValue
from ofa.export.bundle import Bundle, load_bundle
from ofa.export.card import ModelCard, SubnetFacts, subnet_card
from ofa.export.write import ExportReport, export_bundle

__all__ = [
    "Bundle",
    "ExportReport",
    "MetricValue",
    "ModelCard",
    "SubnetFacts",
    "export_bundle",
    "load_bundle",
    "subnet_card",
]
