"""Image data: embedded, torchvision and folder sets behind one small interface."""

from __future__ import annotations

from ofa.data.base import DataInfo, DataSettings, ImageData
from ofa.data.load import describe_data, load_data

__all__ = ["DataInfo", "DataSettings", "ImageData", "describe_data", "load_data"]
