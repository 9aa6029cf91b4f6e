"""Parameters of the expression_estimator node."""

from __future__ import annotations

from cag_avatar_node.node_parameters import NodeParameter

__all__ = ["PARAMETERS"]

PARAMETERS: tuple[NodeParameter, ...] = (
    NodeParameter(
        "input",
        "auto",
        "Images taken: raw; compressed (JPEG, PNG); auto: raw, unless only compressed ones are "
        "published.",
        choices=("raw", "compressed", "auto"),
    ),
    NodeParameter("avatar", "", "Path of the avatar file (*.cag) whose own regressor may be used."),
    NodeParameter(
        "regressor",
        "auto",
        "Codes by the regressor of the avatar file, which only knows the avatar's own person: on; "
        "off; auto: once the face in the images is found to be theirs.",
        choices=("auto", "on", "off"),
    ),
    NodeParameter(
        "max_faces",
        1,
        "Faces looked for, of which the operator's is followed: the largest at first, then the one "
        "that goes on. More than 1 cost time.",
        1,
        8,
    ),
    NodeParameter(
        "operator_timeout_s",
        2.0,
        "Seconds without the operator after which another face may take their place.",
        0.0,
        3600.0,
    ),
    NodeParameter(
        "smoothing",
        "on",
        "One-Euro filter on codes and head pose, which passes fast eyelids through: on; off.",
        choices=("on", "off"),
        dynamic=True,
    ),
    NodeParameter(
        "min_cutoff",
        1.5,
        "Cutoff of the filter for a face at rest, hertz; smaller: steadier and later.",
        0.01,
        100.0,
        dynamic=True,
    ),
    NodeParameter(
        "beta",
        6.0,
        "Growth of the cutoff with the speed, hertz per (coefficient / s); larger: less late.",
        0.0,
        1000.0,
        dynamic=True,
    ),
    NodeParameter(
        "operator_name",
        "",
        "Whose calibration is loaded and saved; empty: calibrations are not kept.",
    ),
    NodeParameter(
        "calibration_dir",
        "",
        "Folder of the calibrations; empty: cag_avatar/operators in the user's data folder.",
    ),
    NodeParameter("calibrate_s", 8.0, "Seconds that ~/calibrate watches.", 1.0, 120.0),
    NodeParameter(
        "calibration",
        "on",
        "Codes sent: on: the operator's neutral at 0 and their full movement at 1, once they are "
        "calibrated; off: as estimated.",
        choices=("on", "off"),
        dynamic=True,
    ),
    NodeParameter(
        "annotated_rate",
        10.0,
        "Pictures a second on ~/annotated, at most.",
        0.1,
        60.0,
        dynamic=True,
    ),
    NodeParameter(
        "publish_hri",
        True,
        "Mirror the face to /humans/faces (REP-155) when hri_msgs is installed.",
    ),
    NodeParameter(
        "publish_tf", True, "Broadcast face_<id> and gaze_<id> when tf2_ros is installed."
    ),
    NodeParameter("face_id", "", "Identifier written into the messages."),
    NodeParameter("input_timeout", 5.0, "Seconds without an image before a warning.", 0.5, 3600.0),
)
