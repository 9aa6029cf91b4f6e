"""DDS settings that let whole images pass between processes."""

from __future__ import annotations

import logging
import os
import shutil
from importlib import resources
from pathlib import Path

__all__ = ["PROFILE_VARIABLE", "image_transport_environment", "profile_path"]

#: Where Fast DDS looks for its profiles.
PROFILE_VARIABLE = "FASTDDS_DEFAULT_PROFILES_FILE"
#: Free shared memory, bytes, below which the profile is not used: its segments are 8 MiB a process.
SHARED_MEMORY_NEEDED = 48 * 2**20
_SHARED_MEMORY = Path("/dev/shm")
_CHOSEN_ALREADY = (
    PROFILE_VARIABLE,
    "FASTRTPS_DEFAULT_PROFILES_FILE",
    "FASTDDS_BUILTIN_TRANSPORTS",
)


def profile_path(one_host: bool = False) -> str:
    """Path of the Fast DDS profile that comes with this package.

    Args:
        one_host: that for nodes which are all on one host: they find each other sooner.
    """
    name = "fastdds_one_host.xml" if one_host else "fastdds_profile.xml"
    return str(resources.files("cag_avatar_node").joinpath(name))


def image_transport_environment(one_host: bool = False) -> dict[str, str]:
    """Environment variables to add for a node that sends or receives images.

    Args:
        one_host: whether all nodes are on this host.

    Returns:
        Nothing when the user has chosen a transport, and, with a warning, when there is too little
        shared memory. Other DDS implementations ignore the variable.
    """
    if any(os.environ.get(variable) for variable in _CHOSEN_ALREADY):
        return {}
    if _SHARED_MEMORY.is_dir():
        free = shutil.disk_usage(_SHARED_MEMORY).free
        if free < SHARED_MEMORY_NEEDED:
            logging.getLogger(__name__).warning(
                "%s has %d MiB free, %d are needed: images may be lost between processes "
                "(in Docker: --shm-size=128m or --ipc=host)",
                _SHARED_MEMORY,
                free >> 20,
                SHARED_MEMORY_NEEDED >> 20,
            )
            return {}
    return {PROFILE_VARIABLE: profile_path(one_host)}
