"""ROS 2 nodes that drive a head avatar live.

The modules that convert and check data import without ROS; the node modules need rclpy.
"""

from __future__ import annotations
