"""Datasets of other projects, opened as ours: FlashAvatar, INSTA, NerFace, IMavatar, VHAP."""

from cag_avatar_training.importers.api import (
    Format,
    ImportConfig,
    import_dataset,
    read_capture,
)
from cag_avatar_training.importers.foreign import FlameTrack, ForeignCapture

__all__ = [
    "FlameTrack",
    "ForeignCapture",
    "Format",
    "ImportConfig",
    "import_dataset",
    "read_capture",
]
