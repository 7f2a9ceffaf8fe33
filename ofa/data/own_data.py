"""`load_own`: an image set that a function of the user's own makes."""

from __future__ import annotations

from ofa.common.display import short_text
from ofa.common.errors import UserError
from ofa.common.own_code import failure_text, own_value, present_folder_first
from ofa.common.progress import ProgressCallback, silent
from ofa.data.base import ImageData
from ofa.data.settings import DataSettings


def load_own(settings: DataSettings, progress: ProgressCallback = silent) -> ImageData:
    """Call `settings.source` with the settings, and with `settings.kwargs` by name, and return what it makes.

    Args:
        settings: settings of the images; `source` is imported as a model of one's own is.
        progress: not called; the function reports nothing.

    Raises:
        UserError: without a `source`; for an unknown module or name; a function that fails, with its error
            and line (its own `UserError` as it is); and one that returns no `ImageData`.
    """
    if settings.source is None:
        raise UserError("data.source is missing; data=own takes data.source=package.module:make_data.")
    with present_folder_first():
        make = own_value(settings.source, "a function that returns an ImageData")
        try:
            data = make(settings, **settings.kwargs)
        except UserError:
            raise
        except Exception as error:  # Whatever the user's function raises.
            written = "".join(f", {key}={short_text(value, 40)}" for key, value in settings.kwargs.items())
            raise UserError(f"{settings.source}(settings{written}) failed: {failure_text(error)}") from error
    if not isinstance(data, ImageData):
        raise UserError(
            f"{settings.source} returned a value of type {type(data).__name__}; expected an "
            "ofa.data.ImageData, e.g. an ofa.data.TensorData."
        )
    return data
