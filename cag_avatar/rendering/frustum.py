"""How far beside a camera's picture the projection of Gaussians is still taken."""

from __future__ import annotations

from cag_avatar.camera import PinholeCamera

__all__ = ["FRUSTUM_MARGIN", "frustum_limits"]

#: The Jacobian of the projection is taken at most this far outside the image, as a fraction of half
#: the field of view: beyond, the affine approximation explodes.
FRUSTUM_MARGIN = 0.3


def frustum_limits(camera: PinholeCamera) -> tuple[float, float, float, float]:
    """Range (x_min, x_max, y_min, y_max) of x / z and y / z at which the Jacobian may be taken."""
    margin_x = FRUSTUM_MARGIN * 0.5 * camera.width / camera.fx
    margin_y = FRUSTUM_MARGIN * 0.5 * camera.height / camera.fy
    return (
        -camera.cx / camera.fx - margin_x,
        (camera.width - camera.cx) / camera.fx + margin_x,
        -camera.cy / camera.fy - margin_y,
        (camera.height - camera.cy) / camera.fy + margin_y,
    )
