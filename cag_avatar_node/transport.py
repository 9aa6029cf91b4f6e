"""DDS settings that let whole images pass between processes."""

from __future__ import annotations

import os
from importlib import resources

__all__ = ["PROFILE_VARIABLE", "image_transport_environment", "profile_path"]

#: Where Fast DDS looks for its profiles.
PROFILE_VARIABLE = "FASTDDS_DEFAULT_PROFILES_FILE"
_CHOSEN_ALREADY = (
    PROFILE_VARIABLE,
    "FASTRTPS_DEFAULT_PROFILES_FILE",
    "FASTDDS_BUILTIN_TRANSPORTS",
)


def profile_path() -> str:
    """Path of the Fast DDS profile that comes with this package."""
    return str(resources.files("cag_avatar_node").joinpath("fastdds_shared_memory.xml"))


def image_transport_environment() -> dict[str, str]:
    """Environment variables to add for a node that sends or receives images.

    Empty when the user has chosen a transport. Other DDS implementations ignore the variable.
    """
    if any(os.environ.get(variable) for variable in _CHOSEN_ALREADY):
        return {}
    return {PROFILE_VARIABLE: profile_path()}
