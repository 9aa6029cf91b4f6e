"""Parameters of the avatar_renderer node, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cag_avatar_node.director import RateConfig
from cag_avatar_node.idle_motion import IdleConfig
from cag_avatar_node.node_parameters import NodeParameter
from cag_avatar_node.presence import PresenceConfig

__all__ = ["RENDERER_PARAMETERS", "idle_config", "presence_config", "rate_config"]

RENDERER_PARAMETERS: tuple[NodeParameter, ...] = (
    NodeParameter("avatar", "", "Path of the avatar file (*.cag)."),
    NodeParameter(
        "avatars", [""], "Paths of further avatar files, to be selected by name (file name)."
    ),
    NodeParameter(
        "backend",
        "auto",
        "Rasteriser; auto: the fastest that this machine has.",
        choices=("auto", "cpu", "cuda", "torch"),
    ),
    NodeParameter("size", 512, "Width and height of the images, pixels.", 64, 2048),
    NodeParameter(
        "encoding",
        "rgb8",
        "Of the raw images; rgba8: transparent around the avatar, and PNG instead of JPEG.",
        choices=("rgb8", "bgr8", "rgba8"),
    ),
    NodeParameter("background", [255, 255, 255], "Background colour: red, green, blue, 0 to 255."),
    NodeParameter(
        "background_image", "", "Image file behind the avatar instead of the colour; not for rgba8."
    ),
    NodeParameter(
        "placard_color",
        [32, 32, 32],
        "Colour of the picture while the avatar is hidden, 0 to 255; of rgba8 nothing is seen.",
    ),
    NodeParameter("placard_image", "", "Image file that is shown instead of that colour."),
    # How the operator's face moves the avatar.
    NodeParameter(
        "head_motion",
        "relative",
        "relative: the avatar's head moves from its own rest pose as the operator's does from "
        "theirs, within what training saw; absolute: it takes the operator's pose; none: it rests.",
        choices=("relative", "absolute", "none"),
        dynamic=True,
    ),
    NodeParameter(
        "max_yaw_deg",
        180.0,
        "How far the head turns to the left and right from rest at most, degrees.",
        0.0,
        180.0,
        dynamic=True,
    ),
    NodeParameter(
        "max_pitch_deg",
        180.0,
        "How far the head turns up and down from rest at most, degrees.",
        0.0,
        180.0,
        dynamic=True,
    ),
    NodeParameter(
        "max_roll_deg",
        180.0,
        "How far the head leans to its sides from rest at most, degrees.",
        0.0,
        180.0,
        dynamic=True,
    ),
    NodeParameter(
        "expression",
        "relative",
        "relative: what changes in the operator's face since its rest (which is followed) is added "
        "to the avatar's own rest; absolute: codes are taken as they are. Both within what "
        "training saw.",
        choices=("relative", "absolute"),
        dynamic=True,
    ),
    NodeParameter(
        "gaze",
        "follow",
        "follow: the avatar's eyes look where the operator's look, relative to the head; none: "
        "straight ahead.",
        choices=("follow", "none"),
        dynamic=True,
    ),
    NodeParameter(
        "neutral_s",
        1.0,
        "Seconds, from the first face on, whose mean head pose is the operator's rest pose.",
        0.0,
        60.0,
    ),
    # How it is looked at.
    NodeParameter(
        "orbit_yaw_deg",
        0.0,
        "The camera's way round the head to its right, degrees.",
        -180.0,
        180.0,
        dynamic=True,
    ),
    NodeParameter(
        "orbit_pitch_deg",
        0.0,
        "The camera's way up over the head, degrees.",
        -90.0,
        90.0,
        dynamic=True,
    ),
    NodeParameter(
        "jpeg_quality", 90, "JPEG quality of the compressed images.", 1, 100, dynamic=True
    ),
    # When it is drawn.
    NodeParameter(
        "render_mode",
        "on_message",
        "on_message: one picture for each expression, at once; timer: at rate_hz, gliding from "
        "code to code, one interval of the codes later.",
        choices=("on_message", "timer"),
    ),
    NodeParameter(
        "rate_hz", 30.0, "Pictures a second of the timer, of fades and of blinks.", 1.0, 240.0
    ),
    NodeParameter(
        "idle_rate_hz",
        10.0,
        "Pictures a second of the resting face between blinks; 0: one, without blinks and sway.",
        0.0,
        240.0,
    ),
    # What is shown when there is no code.
    NodeParameter(
        "live_s",
        0.1,
        "Seconds without a message (or 2.5 usual intervals of them) after which the expression is "
        "held and not live any more.",
        0.0,
        60.0,
    ),
    NodeParameter(
        "hold_s", 0.25, "Seconds without a face for which the last expression stays.", 0.0, 60.0
    ),
    NodeParameter(
        "decay_s", 0.75, "Seconds in which it then fades to rest; 0: at once.", 0.0, 60.0
    ),
    NodeParameter(
        "idle_s",
        30.0,
        "Seconds for which the resting face is then shown before the avatar is hidden, unless "
        "operator/present says that somebody is there.",
        0.0,
        1e9,
    ),
    NodeParameter(
        "return_s", 0.2, "Seconds in which a code that comes back is eased in.", 0.0, 60.0
    ),
    NodeParameter(
        "show_idle_at_start",
        False,
        "Show the resting face before an operator was ever present; false: hidden until then.",
    ),
    NodeParameter("blink_min_s", 3.0, "Seconds between blinks at rest, at least.", 0.7, 3600.0),
    NodeParameter("blink_max_s", 5.0, "Seconds between blinks at rest, at most.", 0.7, 3600.0),
    NodeParameter("idle_sway_deg", 1.5, "How far the resting head sways, degrees.", 0.0, 20.0),
    NodeParameter("idle_seed", 0, "Seed of the times between blinks.", 0, 2**31 - 1),
    NodeParameter(
        "presence_timeout_s",
        0.0,
        "Seconds for which a message on operator/present counts; 0: until the next one.",
        0.0,
        3600.0,
    ),
    NodeParameter(
        "require_consent",
        False,
        "Hide the avatar until operator/consent is true; false there hides it in any case.",
    ),
    NodeParameter(
        "robot_expression_s",
        10.0,
        "Seconds for which an expression of the robot's own stays after its last message; 0: until "
        "the next one.",
        0.0,
        3600.0,
    ),
    NodeParameter(
        "robot_expression_ease_s",
        0.4,
        "Seconds in which an expression of the robot's own comes and goes.",
        0.0,
        60.0,
    ),
    NodeParameter(
        "driving_policy",
        "ignore",
        "What happens unless the vehicle is parked or the display is a passenger's; not "
        "safety-related.",
        choices=("ignore", "hide", "freeze"),
    ),
    NodeParameter(
        "driving_timeout_s",
        2.0,
        "Seconds for which a driving state counts; without one the vehicle counts as moving.",
        0.1,
        3600.0,
    ),
    NodeParameter("input_timeout", 5.0, "Seconds without a message before a warning.", 0.5, 3600.0),
    NodeParameter("frame_id", "avatar_camera_optical_frame", "Frame of the image headers."),
)


def presence_config(value: Callable[[str], Any]) -> PresenceConfig:
    """Times of the states; ``value`` gives a parameter's value. Raises InputError."""
    names = ("live_s", "hold_s", "decay_s", "idle_s", "return_s", "presence_timeout_s")
    return PresenceConfig(
        **{name: value(name) for name in names},
        show_idle_at_start=value("show_idle_at_start"),
        require_consent=value("require_consent"),
    )


def idle_config(value: Callable[[str], Any]) -> IdleConfig:
    """How the resting face moves. Raises InputError."""
    return IdleConfig(
        value("blink_min_s"), value("blink_max_s"), value("idle_sway_deg"), value("idle_seed")
    )


def rate_config(value: Callable[[str], Any]) -> RateConfig:
    """How often pictures are drawn. Raises InputError."""
    return RateConfig(value("render_mode") == "timer", value("rate_hz"), value("idle_rate_hz"))
