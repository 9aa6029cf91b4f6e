"""ROS node: expression codes in, images of the avatar out."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from cag_avatar_msgs.srv import SelectAvatar
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger

from cag_avatar.errors import InputError
from cag_avatar_node.avatar_outputs import AvatarOutputs
from cag_avatar_node.avatar_shelf import AvatarShelf, avatar_paths
from cag_avatar_node.backdrop import check_color, load_backdrop, plain
from cag_avatar_node.director import Director
from cag_avatar_node.driving_gate import DrivingGate
from cag_avatar_node.fault_log import FaultLog
from cag_avatar_node.head_limits import HeadLimits
from cag_avatar_node.managed_node import ManagedNode, run_managed_node
from cag_avatar_node.neutral_pose import NeutralPose
from cag_avatar_node.node_health import Health
from cag_avatar_node.render_loop import RenderLoop
from cag_avatar_node.renderer_inputs import Arrival, RendererInputs, Signals
from cag_avatar_node.renderer_parameters import (
    RENDERER_PARAMETERS,
    idle_config,
    presence_config,
    rate_config,
)
from cag_avatar_node.robot_expression import RobotExpression

if TYPE_CHECKING:
    from cag_avatar_node.avatar_stage import AvatarStage, Pictures
    from cag_avatar_node.driven_avatar import DrivenAvatar

__all__ = ["PARAMETERS", "AvatarRenderer", "main"]

PARAMETERS = RENDERER_PARAMETERS


class AvatarRenderer(ManagedNode):
    """``operator/face/expression`` in; ``avatar/image_raw``, ``avatar/image_raw/compressed`` and
    ``avatar/camera_info`` out.

    Outputs carry the stamp of the newest camera image that they are based on, those of the resting
    face and of the placard the node's clock. Nothing is rendered while nobody subscribes. One
    thread draws (``avatar_stage.py``); callbacks only hand over.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("avatar_renderer", PARAMETERS, **options)
        self._shelf: AvatarShelf[DrivenAvatar] | None = None
        self._stage: AvatarStage | None = None
        self._loop: RenderLoop[Arrival] | None = None
        self._inputs: RendererInputs | None = None
        self._outputs: AvatarOutputs | None = None
        self._faults = FaultLog(self.get_logger().warning)
        self._replaced = 0
        self.add_post_set_parameters_callback(self._on_parameters)
        self._recenter = self.create_service(Trigger, "~/recenter", self._on_recenter)
        self._select = self.create_service(SelectAvatar, "~/select_avatar", self._on_select)

    def configure(self) -> None:
        """Load the avatar and render it once, so that the first live frame is not the slow one."""
        paths = avatar_paths(self.value("avatar"), self.value("avatars"))
        background = check_color(self.value("background"), "background")
        presence, idle = presence_config(self.value), idle_config(self.value)
        # Imported here: it brings torch, and the other nodes start without it.
        from cag_avatar_node.avatar_stage import AvatarStage
        from cag_avatar_node.driven_avatar import DrivenAvatar

        pictures = self._pictures()
        neutral = NeutralPose(self.value("neutral_s"))
        backend, size = self.value("backend"), self.value("size")
        alpha = self.value("encoding") == "rgba8" or pictures.backdrop is not None

        def load(path: Path) -> DrivenAvatar:
            return DrivenAvatar(path, backend, size, background, neutral, alpha=alpha)

        self._shelf = AvatarShelf(paths, load, self._on_load_failure)
        avatar = self._shelf.first()
        director = Director(
            avatar,
            presence,
            idle,
            rate_config(self.value),
            RobotExpression(
                self.value("robot_expression_ease_s"), self.value("robot_expression_s")
            ),
            DrivingGate(self.value("driving_policy"), self.value("driving_timeout_s")),
        )
        self._stage = AvatarStage(self, self._shelf, avatar, director, pictures, self._faults)
        self._on_parameters([])

    def activate(self) -> None:
        """Subscribe and publish."""
        stage = self._stage
        assert stage is not None
        self._outputs = stage.outputs = AvatarOutputs(
            self, self.value("encoding"), self.value("frame_id")
        )
        self._loop = RenderLoop("render", stage.handle, stage.tick, self.report_exception)
        self._inputs = RendererInputs(
            self,
            self._loop.mailbox,
            Signals(
                present=stage.tell(lambda d, flag: d.presence.tell_present(flag, time.monotonic())),
                consent=stage.tell(lambda d, flag: d.presence.tell_consent(flag)),
                driving=stage.tell(stage.tell_driving),
                passenger=stage.tell(lambda d, flag: d.gate.tell_passenger_display(flag)),
                robot=stage.tell(stage.tell_robot),
                avatar=self._on_avatar_name,
            ),
            self.value("input_timeout"),
            lambda: self._outputs is not None and self._outputs.wanted,
        )
        self._loop.start()

    def deactivate(self) -> None:
        """Stop subscribing, rendering and publishing."""
        if self._inputs is not None:
            self._inputs.destroy()
            self._inputs = None
        if self._loop is not None:
            self._loop.stop()
            self._replaced += self._loop.mailbox.replaced
            self._loop = None
        if self._outputs is not None:
            # Nobody is shown any more: who still listens should not believe otherwise.
            self._outputs.publish_state("hidden:absent")
            self._outputs.destroy()
            self._outputs = None

    def cleanup(self) -> None:
        """Free the avatars and, with them, the accelerator's memory."""
        if self._shelf is not None:
            self._shelf.close()
        self._shelf, self._stage = None, None
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()

    def health(self) -> Health:
        """Rate, latency of each stage, drops, and the state."""
        now = self.seconds()
        health = Health()
        stage, shelf = self._stage, self._shelf
        if stage is not None and shelf is not None:
            health.values["state"] = stage.state
            health.values["avatar"] = shelf.shown
            driving = stage.driving_state(time.monotonic())
            if driving is not None:
                health.values["driving_state"] = driving
            health.values["rate_hz"] = f"{stage.timings['render'].rate(now):.2f}"
            for name, window in stage.timings.items():
                health.add_timings(name, window, now)
            health.values["coefficients_clamped"] = str(stage.clamped)
            if shelf.failures:
                health.values["avatars_failed"] = str(shelf.failures)
                health.worsen(
                    DiagnosticStatus.WARN, f"{shelf.failures} avatars not loaded: see the log"
                )
        replaced = self._loop.mailbox.replaced if self._loop is not None else 0
        health.values["expressions_skipped"] = str(self._replaced + replaced)
        for kind, count in self._faults.counts().items():
            health.values[f"dropped_{kind}"] = str(count)
            health.worsen(DiagnosticStatus.WARN, f"messages dropped ({kind}): {count}")
        silence = self._inputs.silence() if self._inputs is not None else None
        if silence is not None:
            health.worsen(DiagnosticStatus.WARN, silence)
        return health

    def _pictures(self) -> Pictures:
        """Placard and backdrop as the parameters say."""
        from cag_avatar_node.avatar_stage import Pictures

        size, transparent = self.value("size"), self.value("encoding") == "rgba8"
        found = {
            name: load_backdrop(self.value(name), size, name) if self.value(name) else None
            for name in ("placard_image", "background_image")
        }
        backdrop, placard = found["background_image"], found["placard_image"]
        if backdrop is not None and transparent:
            raise InputError("parameter background_image: encoding rgba8 has no background")
        opacity = 0 if placard is None else 255
        if placard is None:
            placard = plain(check_color(self.value("placard_color"), "placard_color"), size)
        if transparent:
            alpha = np.full((size, size, 1), opacity, np.uint8)
            placard = np.concatenate([placard, alpha], -1)
        return Pictures(placard, backdrop)

    def _on_parameters(self, changes: list[Parameter[Any]]) -> None:
        """Hand the dynamic parameters to the stage."""
        stage = self._stage
        if stage is None:
            return
        from cag_avatar_node.driven_avatar import DrivingSettings, View

        turns = [self.value(f"max_{name}_deg") for name in ("yaw", "pitch", "roll")]
        stage.settings = DrivingSettings(
            self.value("head_motion"),
            self.value("expression"),
            self.value("gaze"),
            HeadLimits(*turns),
        )
        alpha = self.value("encoding") == "rgba8" or bool(self.value("background_image"))
        stage.view = View(self.value("orbit_yaw_deg"), self.value("orbit_pitch_deg"), alpha)
        stage.jpeg_quality = self.value("jpeg_quality")

    def _on_avatar_name(self, name: str) -> None:
        try:
            if self._shelf is not None:
                self._shelf.select(name)
        except InputError as error:
            self._faults.add("avatar_name", str(error))

    def _on_load_failure(self, name: str, error: Exception) -> None:
        self.get_logger().error(f"avatar {name} is not shown: {error}")

    def _on_select(
        self, request: SelectAvatar.Request, response: SelectAvatar.Response
    ) -> SelectAvatar.Response:
        """Show another avatar."""
        try:
            if self._shelf is None:
                raise InputError("the node is not configured")
            response.message = self._shelf.select(request.name)
            response.success = True
        except InputError as error:
            response.success, response.message = False, str(error)
        return response

    def _on_recenter(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        """The operator's head pose of the next moments becomes their rest pose, and their face's
        rest is found anew."""
        if self._stage is None:
            response.success, response.message = False, "the node is not configured"
            return response
        self._stage.recenter()
        response.success = True
        response.message = "taking the operator's rest pose again"
        return response


def main(args: Sequence[str] | None = None) -> int:
    """Run the node; returns the exit code."""
    return run_managed_node(AvatarRenderer, args)


if __name__ == "__main__":
    sys.exit(main())
