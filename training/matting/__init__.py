"""Alpha mattes of a head video with a fitted head, and the mouth's mask."""

from cag_avatar_training.matting.clip import matte_clip
from cag_avatar_training.matting.config import MatteConfig
from cag_avatar_training.matting.foreground import estimate_foreground
from cag_avatar_training.matting.mouth import OUTER_LIP, mouth_mask

__all__ = ["OUTER_LIP", "MatteConfig", "estimate_foreground", "matte_clip", "mouth_mask"]
