"""Image sets: reading, splitting, augmenting and normalising."""

from typing import TYPE_CHECKING

from ofa.common.lazy import lazy_names

if TYPE_CHECKING:
    from ofa.data.base import ImageData
    from ofa.data.pictures import read_picture
    from ofa.data.preprocessing import Preprocessing
    from ofa.data.settings import DataInfo, DataSettings
    from ofa.data.sources import load_data
    from ofa.data.tensor_data import TensorData

__all__ = [
    "DataInfo",
    "DataSettings",
    "ImageData",
    "Preprocessing",
    "TensorData",
    "load_data",
    "read_picture",
]

__getattr__ = lazy_names(
    __name__,
    {
        "base": ["ImageData"],
        "pictures": ["read_picture"],
        "preprocessing": ["Preprocessing"],
        "settings": ["DataInfo", "DataSettings"],
        "sources": ["load_data"],
        "tensor_data": ["TensorData"],
    },
)
