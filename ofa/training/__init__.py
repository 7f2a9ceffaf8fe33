"""From phases to weights: recipes, the trainer of supernets, and `fit` for any network."""

from typing import TYPE_CHECKING

from ofa.common.lazy import lazy_names

if TYPE_CHECKING:
    from ofa.training.fitting import fit
    from ofa.training.phases import Phase
    from ofa.training.recipe import Recipe, load_recipe
    from ofa.training.settings import FinetuneSettings, TrainSettings
    from ofa.training.trainer import Trainer

__all__ = [
    "FinetuneSettings",
    "Phase",
    "Recipe",
    "TrainSettings",
    "Trainer",
    "fit",
    "load_recipe",
]

__getattr__ = lazy_names(
    __name__,
    {
        "fitting": ["fit"],
        "phases": ["Phase"],
        "recipe": ["Recipe", "load_recipe"],
        "settings": ["FinetuneSettings", "TrainSettings"],
        "trainer": ["Trainer"],
    },
)
