"""Alpha mattes of a head video with a fitted head, and labels of the face's parts."""

from cag_avatar_training.matting.clip import matte_clip
from cag_avatar_training.matting.config import MatteConfig
from cag_avatar_training.matting.foreground import estimate_foreground
from cag_avatar_training.matting.parser import check_networks, make_parser
from cag_avatar_training.matting.parsing import Parser

__all__ = [
    "MatteConfig",
    "Parser",
    "check_networks",
    "estimate_foreground",
    "make_parser",
    "matte_clip",
]
