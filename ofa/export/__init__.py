"""A network as a folder that runs elsewhere."""

from ofa.common.expectation import MetricValue
from ofa.export.bundle import Bundle, load_bundle
from ofa.export.card import ModelCard, SubnetFacts, subnet_card
from ofa.export.classify import Classification, classify_pictures
from ofa.export.segment import SegmentedPicture, segment_pictures
from ofa.export.write import ExportReport, export_bundle

__all__ = [
    "Bundle",
    "Classification",
    "ExportReport",
    "MetricValue",
    "ModelCard",
    "SegmentedPicture",
    "SubnetFacts",
    "classify_pictures",
    "export_bundle",
    "load_bundle",
    "segment_pictures",
    "subnet_card",
]
