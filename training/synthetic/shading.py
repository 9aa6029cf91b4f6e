"""Per-sample shading: texture look-up, relief, three lights, highlights, hair; then averaging."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from cag_avatar_training.synthetic.hair import STREAK_SCALE
from cag_avatar_training.synthetic.identity import Colour, Light
from cag_avatar_training.synthetic.texture import SLOPE_SCALE
from numba import njit, prange
from numpy.typing import NDArray

from cag_avatar.rendering.mesh import MeshBuffers

__all__ = ["EYE", "HAIR", "LASH", "MOUTH", "SURFACE", "Geometry", "Materials", "shade"]

#: Kinds of faces, in ``Materials.kind``.
SURFACE, EYE, MOUTH, HAIR, LASH = range(5)

#: Label of a pixel that shows the background.
NO_REGION = 255


@dataclass(frozen=True)
class Materials:
    """What does not change from frame to frame; F faces of head, hair and lashes together."""

    texture: NDArray[np.uint8]
    """Packed texture, [N, N, CHANNELS]."""
    corner_uv: NDArray[np.float32]
    """Texture coordinates of each face's corners, [F, 3, 2]."""
    kind: NDArray[np.uint8]
    """[F]."""
    joint: NDArray[np.uint8]
    """Which rotation turns the relief of each face, [F]."""
    label: NDArray[np.uint8]
    """Region of each face, [F]."""
    hair: NDArray[np.float32]
    """Hair attributes of each vertex, tangents in canonical axes, [V, 6]."""
    streaks: NDArray[np.float32]
    hair_colour: NDArray[np.float32]
    """Linear, [3]."""
    lash_colour: NDArray[np.float32]
    """Linear, [3]."""
    light: NDArray[np.float32]
    """Rows: key direction, key colour, fill direction, fill colour, sky, ground; [6, 3]."""
    encode: NDArray[np.float32]
    """Tone curve and sRGB code over linear light 0 to 4, [4096]."""


@dataclass(frozen=True)
class Geometry:
    """Per-vertex values of one frame, camera axes; V vertices of head, hair and lashes."""

    position: NDArray[np.float32]
    """Metres, [V, 3]."""
    normal: NDArray[np.float32]
    """Unit, [V, 3]."""
    visibility: NDArray[np.float32]
    """Share of the sky seen, [V]."""
    crease: NDArray[np.float32]
    """Strength of both crease patterns, [V, 2]."""
    rotations: NDArray[np.float32]
    """Canonical to camera axes for each joint, [J, 3, 3]."""


def light_rows(light: Light) -> NDArray[np.float32]:
    """A light as the rows that ``Materials.light`` holds; directions become unit vectors."""

    def unit(direction: Colour) -> NDArray[np.float32]:
        d = np.asarray(direction, np.float32)
        return np.asarray(d / np.linalg.norm(d), np.float32)

    return np.asarray(
        [
            unit(light.key_direction), light.key_colour, unit(light.fill_direction),
            light.fill_colour, light.sky_colour, light.ground_colour,
        ],
        np.float32,
    )  # fmt: skip


def tone_curve(exposure: float = 0.80) -> NDArray[np.float32]:
    """sRGB code of linear light 0 to 4 behind a soft shoulder, 4096 steps."""
    x = np.linspace(0, 4, 4096) * exposure
    y = np.where(x < 0.6, x, 0.6 + 0.4 * (1 - np.exp(-(x - 0.6) / 0.4)))
    return np.asarray(
        np.where(y <= 0.0031308, 12.92 * y, 1.055 * y ** (1 / 2.4) - 0.055), np.float32
    )


def shade(
    buffers: MeshBuffers,
    geometry: Geometry,
    materials: Materials,
    background: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]]:
    """Colour every pixel.

    Args:
        buffers: visible faces, supersampled.
        geometry: the frame's vertices.
        materials: the person's look.
        background: sRGB in [0, 1], [H, W, 3].

    Returns:
        The picture in sRGB [H, W, 3] float32, which is foreground + (1 - alpha) background of the
        *encoded* values; alpha [H, W] float32; the region that most samples show [H, W] uint8,
        NO_REGION where none does.
    """
    height, width = background.shape[:2]
    image = np.empty((height, width, 3), np.float32)
    alpha = np.empty((height, width), np.float32)
    label = np.empty((height, width), np.uint8)
    _shade(
        buffers.face_index, buffers.barycentric, buffers.faces, buffers.supersample,
        geometry.position, geometry.normal, geometry.visibility, geometry.crease,
        geometry.rotations, materials.texture, materials.corner_uv, materials.kind,
        materials.joint, materials.label, materials.hair, materials.streaks,
        materials.hair_colour, materials.lash_colour, materials.light, materials.encode,
        background, image, alpha, label,
    )  # fmt: skip
    return image, alpha, label


@njit(cache=True, nogil=True, fastmath=True)
def _encode(value, table):  # type: ignore[no-untyped-def]
    index = int(value * np.float32(4095.0 / 4.0) + np.float32(0.5))
    return table[min(max(index, 0), 4095)]


@njit(cache=True, nogil=True, fastmath=True)
def _step(value, low, high):  # type: ignore[no-untyped-def]
    t = min(max((value - low) / (high - low), np.float32(0)), np.float32(1))
    return t * t * (np.float32(3) - np.float32(2) * t)


@njit(cache=True, nogil=True, parallel=True, fastmath=True)
def _shade(  # type: ignore[no-untyped-def]
    face_index, barycentric, faces, step,
    position, normal, visibility, crease,
    rotations, texture, corner_uv, kind,
    joint, region, hair, streaks,
    hair_colour, lash_colour, light, encode,
    background, image, alpha, label,
):  # fmt: skip
    height, width = alpha.shape
    size = texture.shape[0]
    f32 = np.float32
    one, zero = f32(1), f32(0)
    level, extent = f32(128), f32(size)
    for row in prange(height):
        t = np.empty(16, np.float32)
        votes = np.zeros(256, np.int32)
        for column in range(width):
            total_r, total_g, total_b = zero, zero, zero
            hits = 0
            best, best_votes = 255, 0
            uniform = True
            first = face_index[row * step, column * step]
            for si in range(step):
                for sj in range(step):
                    f = face_index[row * step + si, column * step + sj]
                    if f >= 0:
                        hits += 1
                        votes[region[f]] += 1
                    uniform = uniform and f >= 0 and kind[f] == kind[first]
            # Inside one material the samples on the diagonal stand for all.
            weight = one / f32(step if uniform else step * step)
            for si in range(step):
                for sj in range(step):
                    if uniform and si != sj:
                        continue
                    i, j = row * step + si, column * step + sj
                    f = face_index[i, j]
                    if f < 0:
                        continue
                    wa, wb, wc = barycentric[i, j, 0], barycentric[i, j, 1], barycentric[i, j, 2]
                    a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
                    nx = wa * normal[a, 0] + wb * normal[b, 0] + wc * normal[c, 0]
                    ny = wa * normal[a, 1] + wb * normal[b, 1] + wc * normal[c, 1]
                    nz = wa * normal[a, 2] + wb * normal[b, 2] + wc * normal[c, 2]
                    px = wa * position[a, 0] + wb * position[b, 0] + wc * position[c, 0]
                    py = wa * position[a, 1] + wb * position[b, 1] + wc * position[c, 1]
                    pz = wa * position[a, 2] + wb * position[b, 2] + wc * position[c, 2]
                    scale = -one / np.sqrt(px * px + py * py + pz * pz)
                    vx, vy, vz = px * scale, py * scale, pz * scale
                    sky = wa * visibility[a] + wb * visibility[b] + wc * visibility[c]
                    what = kind[f]
                    q = joint[f]
                    r00, r01, r02 = rotations[q, 0, 0], rotations[q, 0, 1], rotations[q, 0, 2]
                    r10, r11, r12 = rotations[q, 1, 0], rotations[q, 1, 1], rotations[q, 1, 2]
                    r20, r21, r22 = rotations[q, 2, 0], rotations[q, 2, 1], rotations[q, 2, 2]
                    scale = one / max(np.sqrt(nx * nx + ny * ny + nz * nz), f32(1e-6))
                    nx, ny, nz = nx * scale, ny * scale, nz * scale
                    if what == 4:
                        total_r += _encode(lash_colour[0], encode)
                        total_g += _encode(lash_colour[1], encode)
                        total_b += _encode(lash_colour[2], encode)
                        continue
                    if what == 3:
                        # Kajiya and Kay (1989): light along a fibre depends on its tangent.
                        tx = wa * hair[a, 0] + wb * hair[b, 0] + wc * hair[c, 0]
                        ty = wa * hair[a, 1] + wb * hair[b, 1] + wc * hair[c, 1]
                        tz = wa * hair[a, 2] + wb * hair[b, 2] + wc * hair[c, 2]
                        across = wa * hair[a, 3] + wb * hair[b, 3] + wc * hair[c, 3]
                        along = wa * hair[a, 4] + wb * hair[b, 4] + wc * hair[c, 4]
                        tone = wa * hair[a, 5] + wb * hair[b, 5] + wc * hair[c, 5]
                        tile = streaks.shape[0]
                        u = int(np.floor(across * f32(STREAK_SCALE[0]))) % tile
                        v = int(np.floor(along * f32(STREAK_SCALE[1]))) % tile
                        streak = streaks[u, v]
                        hx = r00 * tx + r01 * ty + r02 * tz
                        hy = r10 * tx + r11 * ty + r12 * tz
                        hz = r20 * tx + r21 * ty + r22 * tz
                        # Streaks tilt the fibres a little, which breaks the highlight into locks.
                        tilt = f32(0.5) * (streak - f32(0.5))
                        hx, hy, hz = hx + tilt * nx, hy + tilt * ny, hz + tilt * nz
                        scale = one / max(np.sqrt(hx * hx + hy * hy + hz * hz), f32(1e-6))
                        hx, hy, hz = hx * scale, hy * scale, hz * scale
                        tone *= f32(0.42) + f32(1.15) * streak
                        red, green, blue = zero, zero, zero
                        for lamp in range(2):
                            lx, ly, lz = (
                                light[2 * lamp, 0], light[2 * lamp, 1], light[2 * lamp, 2],
                            )  # fmt: skip
                            facing = max(nx * lx + ny * ly + nz * lz + f32(0.30), zero) / f32(1.30)
                            tl = hx * lx + hy * ly + hz * lz
                            tv = hx * vx + hy * vy + hz * vz
                            sl = np.sqrt(max(one - tl * tl, zero))
                            sv = np.sqrt(max(one - tv * tv, zero))
                            lobe = max(sl * sv - tl * tv, zero)
                            lobe *= lobe
                            lobe *= lobe
                            lobe *= lobe
                            lobe *= lobe
                            lobe *= lobe
                            shine = f32(0.10) * lobe * facing * (f32(0.3) + streak)
                            body = (f32(0.35) + f32(0.65) * sl) * facing * tone
                            cr, cg, cb = (
                                light[2 * lamp + 1, 0], light[2 * lamp + 1, 1],
                                light[2 * lamp + 1, 2],
                            )  # fmt: skip
                            red += cr * (body * hair_colour[0] + shine)
                            green += cg * (body * hair_colour[1] + shine)
                            blue += cb * (body * hair_colour[2] + shine)
                        up = f32(0.5) - f32(0.5) * ny
                        open_sky = (f32(0.3) + f32(0.7) * sky) * tone
                        red += (
                            open_sky
                            * hair_colour[0]
                            * (light[5, 0] + up * (light[4, 0] - light[5, 0]))
                        )
                        green += (
                            open_sky
                            * hair_colour[1]
                            * (light[5, 1] + up * (light[4, 1] - light[5, 1]))
                        )
                        blue += (
                            open_sky
                            * hair_colour[2]
                            * (light[5, 2] + up * (light[4, 2] - light[5, 2]))
                        )
                        total_r += _encode(red, encode)
                        total_g += _encode(green, encode)
                        total_b += _encode(blue, encode)
                        continue

                    u = wa * corner_uv[f, 0, 0] + wb * corner_uv[f, 1, 0] + wc * corner_uv[f, 2, 0]
                    v = wa * corner_uv[f, 0, 1] + wb * corner_uv[f, 1, 1] + wc * corner_uv[f, 2, 1]
                    x, y = u * extent - f32(0.5), (one - v) * extent - f32(0.5)
                    x0 = min(max(int(np.floor(x)), 0), size - 2)
                    y0 = min(max(int(np.floor(y)), 0), size - 2)
                    fx, fy = x - f32(x0), y - f32(y0)
                    w00, w01 = (one - fx) * (one - fy), fx * (one - fy)
                    w10, w11 = (one - fx) * fy, fx * fy
                    for k in range(16):
                        t[k] = (
                            w00 * f32(texture[y0, x0, k])
                            + w01 * f32(texture[y0, x0 + 1, k])
                            + w10 * f32(texture[y0 + 1, x0, k])
                            + w11 * f32(texture[y0 + 1, x0 + 1, k])
                        )
                    m0 = wa * crease[a, 0] + wb * crease[b, 0] + wc * crease[c, 0]
                    m1 = wa * crease[a, 1] + wb * crease[b, 1] + wc * crease[c, 1]
                    sx = t[3] - level + m0 * (t[6] - level) + m1 * (t[10] - level)
                    sy = t[4] - level + m0 * (t[7] - level) + m1 * (t[11] - level)
                    sz = t[5] - level + m0 * (t[8] - level) + m1 * (t[12] - level)
                    inverse = f32(1.0 / SLOPE_SCALE)
                    gx = (r00 * sx + r01 * sy + r02 * sz) * inverse
                    gy = (r10 * sx + r11 * sy + r12 * sz) * inverse
                    gz = (r20 * sx + r21 * sy + r22 * sz) * inverse
                    smooth = nx * vx + ny * vy + nz * vz
                    along = gx * nx + gy * ny + gz * nz
                    ux, uy, uz = nx, ny, nz
                    nx, ny, nz = nx - gx + along * nx, ny - gy + along * ny, nz - gz + along * nz
                    scale = one / max(np.sqrt(nx * nx + ny * ny + nz * nz), f32(1e-6))
                    nx, ny, nz = nx * scale, ny * scale, nz * scale
                    fold = one - f32(0.26) * (m0 * t[9] + m1 * t[13]) / f32(255)
                    fold = max(fold, f32(0.4))
                    red, green, blue = t[0] / f32(255), t[1] / f32(255), t[2] / f32(255)
                    red, green, blue = red * red * fold, green * green * fold, (blue * blue * fold)
                    gloss, sharpness = t[14] / f32(255), t[15] / f32(255)
                    direct = min(sky * f32(1.7), one)
                    soft = min(gloss * f32(5), one)
                    if what == 1:
                        # The lids shade the ball from above and in the corners, whatever the gaze.
                        up = rotations[2, 0, 1] * ux + rotations[2, 1, 1] * uy
                        up += rotations[2, 2, 1] * uz
                        out = rotations[2, 0, 0] * ux + rotations[2, 1, 0] * uy
                        out += rotations[2, 2, 0] * uz
                        sky = one - f32(0.62) * _step(up, f32(0.02), f32(0.34))
                        sky *= one - f32(0.5) * _step(abs(out), f32(0.38), f32(0.80))
                        direct = sky
                        soft = f32(0.4)
                        ux, uy, uz = nx, ny, nz
                    elif what == 2:
                        soft = f32(0.35)
                    light_r = sky * (
                        light[5, 0] + (f32(0.5) - f32(0.5) * ny) * (light[4, 0] - light[5, 0])
                    )
                    light_g = sky * (
                        light[5, 1] + (f32(0.5) - f32(0.5) * ny) * (light[4, 1] - light[5, 1])
                    )
                    light_b = sky * (
                        light[5, 2] + (f32(0.5) - f32(0.5) * ny) * (light[4, 2] - light[5, 2])
                    )
                    shine_r, shine_g, shine_b = zero, zero, zero
                    power = f32(2) ** (f32(3) + f32(8) * sharpness)
                    for lamp in range(2):
                        lx, ly, lz = light[2 * lamp, 0], light[2 * lamp, 1], light[2 * lamp, 2]
                        cr, cg, cb = (
                            light[2 * lamp + 1, 0], light[2 * lamp + 1, 1], light[2 * lamp + 1, 2],
                        )  # fmt: skip
                        facing = nx * lx + ny * ly + nz * lz
                        # Light that has wandered under the skin comes out red past the terminator.
                        wrap_r, wrap_g, wrap_b = (
                            f32(0.34) * soft,
                            f32(0.16) * soft,
                            f32(0.11) * soft,
                        )
                        light_r += direct * cr * max(facing + wrap_r, zero) / (one + wrap_r)
                        light_g += direct * cg * max(facing + wrap_g, zero) / (one + wrap_g)
                        light_b += direct * cb * max(facing + wrap_b, zero) / (one + wrap_b)
                        if facing > 0 and gloss > 0:
                            hx, hy, hz = lx + vx, ly + vy, lz + vz
                            scale = one / max(np.sqrt(hx * hx + hy * hy + hz * hz), f32(1e-6))
                            nh = (nx * hx + ny * hy + nz * hz) * scale
                            vh = one - (vx * hx + vy * hy + vz * hz) * scale
                            fresnel = f32(0.04) + f32(0.96) * vh * vh * vh * vh * vh
                            if nh > 0:
                                lobe = np.exp(power * np.log(max(nh, f32(1e-4))))
                                lobe *= fresnel * gloss * direct * facing
                                lobe *= (power + f32(8)) * f32(0.045)
                                shine_r += lobe * cr
                                shine_g += lobe * cg
                                shine_b += lobe * cb
                    edge = one - max(smooth, zero)
                    edge = f32(0.10) * gloss * sky * edge * edge * edge
                    total_r += _encode(red * light_r + shine_r + edge * light[4, 0], encode)
                    total_g += _encode(green * light_g + shine_g + edge * light[4, 1], encode)
                    total_b += _encode(blue * light_b + shine_b + edge * light[4, 2], encode)
            # Votes are cleared as they are counted; the lower region wins a tie.
            for si in range(step):
                for sj in range(step):
                    f = face_index[row * step + si, column * step + sj]
                    if f >= 0:
                        r = region[f]
                        n = votes[r]
                        votes[r] = 0
                        if n > best_votes or (n == best_votes and n > 0 and r < best):
                            best, best_votes = r, n
            covered = f32(hits) / f32(step * step)
            if 2 * hits < step * step:
                best = 255
            alpha[row, column] = covered
            label[row, column] = best
            rest = one - covered
            image[row, column, 0] = total_r * weight + rest * background[row, column, 0]
            image[row, column, 1] = total_g * weight + rest * background[row, column, 1]
            image[row, column, 2] = total_b * weight + rest * background[row, column, 2]
