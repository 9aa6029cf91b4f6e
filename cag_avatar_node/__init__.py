"""ROS 2 nodes that drive a head avatar live.

The modules that convert and check data import without ROS; the node modules need rclpy.
"""

from __future__ import annotations

import os
import sys

# The nodes share the cores with each other, and numpy's products are small here: OpenBLAS's second
# thread only waits, at full load. Once numpy is loaded it would only reach other programs.
if "numpy" not in sys.modules:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
