"""A synthetic person that can be photographed in any pose and expression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from cag_avatar_training.synthetic.creases import crease_amplitudes
from cag_avatar_training.synthetic.hair import Hairdo, grow_hair
from cag_avatar_training.synthetic.identity import (
    SHAPE_LIMIT,
    SHAPE_SPREAD,
    Traits,
    draw_traits,
    mouth_offsets,
    srgb_to_linear,
)
from cag_avatar_training.synthetic.lids import Lashes, grow_lashes, lid_margins
from cag_avatar_training.synthetic.mouth import arch_normals
from cag_avatar_training.synthetic.occlusion import sky_visibility
from cag_avatar_training.synthetic.shading import (
    EYE,
    HAIR,
    LASH,
    MOUTH,
    SURFACE,
    Geometry,
    Materials,
    light_rows,
    shade,
    tone_curve,
)
from cag_avatar_training.synthetic.texture import paint_texture
from numpy.typing import NDArray
from torch import Tensor

from cag_avatar.camera import PinholeCamera
from cag_avatar.head_models import ARKIT_INDEX, JOINTS, REGIONS, HeadModel, load_head_model
from cag_avatar.rendering.mesh import rasterize, vertex_normals

__all__ = ["RenderedFrame", "Subject", "create_subject", "default_camera"]

#: A code that opens the mouth, one that closes the eyes: together with the resting face they tell
#: how much sky every vertex can see when it is in view at all.
_OPEN_MOUTH = {
    "jawOpen": 0.55, "mouthSmileLeft": 0.5, "mouthSmileRight": 0.5, "mouthUpperUpLeft": 0.5,
    "mouthUpperUpRight": 0.5, "mouthLowerDownLeft": 0.5, "mouthLowerDownRight": 0.5,
}  # fmt: skip
_CLOSED_EYES = {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}


@dataclass(frozen=True)
class RenderedFrame:
    """One photograph and what is true about it."""

    image: NDArray[np.uint8]
    """sRGB, [H, W, 3]."""
    alpha: NDArray[np.float32]
    """Coverage by the person, [H, W] in [0, 1]."""
    regions: NDArray[np.uint8]
    """Index into REGIONS, 255 for the background, [H, W]. Hair counts as scalp."""


def default_camera(size: int) -> PinholeCamera:
    """A webcam crop: a head 0.86 m away fills about 60 % of the height."""
    focal = 1130.0 / 512 * size
    return PinholeCamera(size, size, focal, focal, size / 2, size / 2)


@dataclass(frozen=True)
class Subject:
    """A person: geometry, texture and light, ready to be posed."""

    model: HeadModel
    traits: Traits
    rest: Tensor
    """Rest head, [V, 3] metres: identity and ``offsets`` applied."""
    offsets: Tensor
    """Rest offsets beyond the identity basis (teeth and tongue), [V, 3] metres."""
    hair: Hairdo
    lashes: Lashes
    materials: Materials
    faces: NDArray[np.int32]
    """Faces of head, hair and lashes, [F, 3]."""
    visibility: NDArray[np.float32]
    """Share of the sky seen by each vertex, [V + hair + lashes]."""
    crease_weights: Tensor
    """[52, V * 2]."""
    fixed_normals: dict[str, tuple[NDArray[np.int64], NDArray[np.float32]]]
    """Vertices whose normals are known better than from their few faces (teeth, eyeballs), by the
    joint that turns them: indices [N] and canonical normals [N, 3]."""
    wall: NDArray[np.float32]
    """Background, sRGB in [0, 1], a square picture [B, B, 3]."""

    def photograph(
        self,
        camera: PinholeCamera,
        code: NDArray[np.floating] | Tensor,
        head_pose: NDArray[np.floating] | Tensor,
        torso_pose: NDArray[np.floating] | Tensor,
        supersample: int = 2,
        noise: NDArray[np.floating] | None = None,
    ) -> RenderedFrame:
        """Draw one frame.

        Args:
            camera: intrinsics; the camera is the world.
            code: ARKIT_NAMES coefficients, [52].
            head_pose: canonical to camera space, [4, 4].
            torso_pose: canonical to camera space, [4, 4].
            supersample: samples per pixel along each axis.
            noise: added to the 8-bit picture before rounding, [H, W, 3].
        """
        model = self.model
        c = torch.as_tensor(np.asarray(code), dtype=torch.float32)[None]
        head = torch.as_tensor(np.asarray(head_pose), dtype=torch.float32)[None]
        torso = torch.as_tensor(np.asarray(torso_pose), dtype=torch.float32)[None]
        joints = model.joint_transforms(self.rest, c, head, torso)
        canonical = model.express(self.rest, c)
        base = model.skin(canonical, joints)[0].numpy()
        rotations = joints[0, :, :3, :3].numpy()
        turn, move = head[0, :3, :3].numpy(), head[0, :3, 3].numpy()
        lashes = self.lashes.vertices(canonical[0].numpy(), c[0].numpy()) @ turn.T + move
        position = np.concatenate([base, self.hair.vertices @ turn.T + move, lashes])
        position = np.ascontiguousarray(position, np.float32)

        normal = vertex_normals(base, model.faces.numpy())
        for joint, (index, known) in self.fixed_normals.items():
            normal[index] = known @ rotations[JOINTS.index(joint)].T
        normals = np.zeros_like(position)
        normals[: len(base)] = normal
        normals[len(base) : len(base) + len(self.hair.normals)] = self.hair.normals @ turn.T
        crease = np.zeros((len(position), 2), np.float32)
        crease[: len(base)] = 0.10 + (c @ self.crease_weights).reshape(-1, 2).numpy()

        buffers = rasterize(position, self.faces, camera, supersample)
        geometry = Geometry(position, normals, self.visibility, crease, rotations)
        image, alpha, label = shade(buffers, geometry, self.materials, self._background(camera))
        image *= 255
        if noise is not None:
            image += noise
        image += 0.5
        return RenderedFrame(np.clip(image, 0, 255, out=image).astype(np.uint8), alpha, label)

    def _background(self, camera: PinholeCamera) -> NDArray[np.float32]:
        if self.wall.shape[:2] == (camera.height, camera.width):
            return self.wall
        return _wall(self.traits, camera.width, camera.height)


def create_subject(
    seed: int,
    texture_size: int = 1536,
    strands: int = 3000,
    model: HeadModel | None = None,
    identity_spread: float = SHAPE_SPREAD,
    identity_limit: float = SHAPE_LIMIT,
) -> Subject:
    """Make the person that a seed names.

    Args:
        seed: non-negative.
        texture_size: width and height of the skin texture.
        strands: loose hairs.
        model: head model, Anny by default.
        identity_spread: standard deviation of the identity coefficients.
        identity_limit: largest identity coefficient.
    """
    model = load_head_model("anny") if model is None else model
    rng = np.random.default_rng([seed, 1])
    traits = draw_traits(model, rng, identity_spread, identity_limit)
    offsets = mouth_offsets(model)
    rest = model.rest_vertices(traits.identity, offsets)
    shape, mean = rest.numpy(), model.vertices.numpy()
    hair = grow_hair(model, shape, traits, strands, rng)
    margins = lid_margins(model, shape)
    lashes = grow_lashes(model, shape, margins, rng)
    on_mean = [np.concatenate([m[k].at(mean) for m in margins.values()]) for k in (0, 1)]
    texture = paint_texture(
        model, traits, hair, (on_mean[0], on_mean[1]), texture_size, int(rng.integers(2**30))
    )

    head_faces = model.faces.numpy()
    hair_faces = hair.faces + len(shape)
    lash_count = len(lashes.blink)
    lash_faces = np.arange(3 * lash_count).reshape(-1, 3) + len(shape) + len(hair.vertices)
    faces = np.concatenate([head_faces, hair_faces, lash_faces]).astype(np.int32)
    region = model.face_region.numpy()
    count = len(shape) + len(hair.vertices) + 3 * lash_count

    solid = _without_strands(hair)
    visibility = np.ones(count, np.float32)
    visibility[: len(shape)] = _head_visibility(model, rest, hair.vertices, solid)
    normals = np.concatenate([np.zeros_like(shape), hair.normals])
    own = sky_visibility(
        np.concatenate([shape, hair.vertices]), normals,
        np.concatenate([head_faces, solid + len(shape)]),
    )  # fmt: skip
    visibility[len(shape) : len(shape) + len(hair.vertices)] = own[len(shape) :]

    hair_values = np.zeros((count, 6), np.float32)
    hair_values[len(shape) : len(shape) + len(hair.vertices)] = hair.attributes
    corner_uv = np.zeros((len(faces), 3, 2), np.float32)
    corner_uv[: len(head_faces)] = model.uv.numpy()[model.face_uv.numpy()]
    materials = Materials(
        texture=texture,
        corner_uv=corner_uv,
        kind=_join(_kinds(region), len(hair_faces), HAIR, lash_count, LASH),
        joint=_join(
            _joints(region), len(hair_faces), JOINTS.index("head"), lash_count, JOINTS.index("head")
        ),
        label=_join(
            region, len(hair_faces), REGIONS.index("scalp"), lash_count, REGIONS.index("face_skin")
        ),
        hair=hair_values,
        streaks=hair.streaks,
        hair_colour=srgb_to_linear(traits.hair) * np.float32(1.15),
        lash_colour=srgb_to_linear(traits.brows) * np.float32(0.12),
        light=light_rows(traits.light),
        encode=tone_curve(),
    )
    teeth = model.region_vertices("teeth_upper", "teeth_lower").numpy()
    fixed = {"head": (teeth, arch_normals(mean[teeth]))}
    centres = model.eye_centres(rest).numpy()
    for side, eye in enumerate(model.eye_vertices):
        ball = shape[eye.numpy()] - centres[side]
        ball /= np.linalg.norm(ball, axis=1, keepdims=True)
        fixed[("eye_left", "eye_right")[side]] = (eye.numpy(), ball)
    weights = torch.from_numpy(crease_amplitudes(mean)).reshape(len(ARKIT_INDEX), -1)
    return Subject(
        model=model, traits=traits, rest=rest, offsets=offsets, hair=hair, lashes=lashes,
        materials=materials, faces=faces, visibility=visibility, crease_weights=weights,
        fixed_normals=fixed, wall=_wall(traits, 512, 512),
    )  # fmt: skip


def _head_visibility(
    model: HeadModel, rest: Tensor, hair: NDArray[np.float32], hair_faces: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The most sky each vertex sees at rest, with the mouth open or with the eyes shut, [V]."""
    seen = np.zeros(len(rest), np.float32)
    faces = np.concatenate([model.faces.numpy(), hair_faces + len(rest)])
    inner = model.region_vertices("teeth_upper", "teeth_lower", "tongue", "mouth_cavity").numpy()
    for values in ({}, _OPEN_MOUTH, _CLOSED_EYES):
        code = torch.zeros(1, len(ARKIT_INDEX))
        for name, value in values.items():
            code[0, ARKIT_INDEX[name]] = value
        vertices = model.express(rest, code)[0].numpy()
        normals = vertex_normals(vertices, model.faces.numpy())
        both = np.concatenate([vertices, hair])
        padded = np.concatenate([normals, np.zeros_like(hair)])
        seen = np.maximum(seen, sky_visibility(both, padded, faces)[: len(seen)])
    # Few directions reach into the mouth; light scattered inside it is not counted by rays.
    seen[inner] = 0.30 + 0.70 * seen[inner]
    return np.asarray(np.clip(0.12 + 1.05 * seen, 0, 1), np.float32)


def _without_strands(hair: Hairdo) -> NDArray[np.int64]:
    """Faces of the shell alone: single strands do not shade."""
    shell = hair.faces[:, 0] < hair.shell_vertices
    return hair.faces[shell]


def _kinds(region: NDArray[np.int64]) -> NDArray[np.uint8]:
    kind = np.full(len(region), SURFACE, np.uint8)
    for name in ("eye_left", "eye_right"):
        kind[region == REGIONS.index(name)] = EYE
    for name in ("teeth_upper", "teeth_lower", "tongue", "mouth_cavity"):
        kind[region == REGIONS.index(name)] = MOUTH
    return kind


def _joints(region: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The joint that carries most of each region, for turning its relief."""
    joint = np.full(len(region), JOINTS.index("head"), np.uint8)
    for name, owner in (
        ("eye_left", "eye_left"), ("eye_right", "eye_right"), ("neck", "neck"),
        ("shoulders", "torso"),
    ):  # fmt: skip
        joint[region == REGIONS.index(name)] = JOINTS.index(owner)
    return joint


def _join(
    head: NDArray[np.integer], hair_count: int, hair: int, lash_count: int, lash: int
) -> NDArray[np.uint8]:
    return np.concatenate([head, np.full(hair_count, hair), np.full(lash_count, lash)]).astype(
        np.uint8
    )


def _wall(traits: Traits, width: int, height: int) -> NDArray[np.float32]:
    """A plain wall, brighter at the top and on the side of the lamp, sRGB [H, W, 3]."""
    top, bottom = (np.asarray(c, np.float32) for c in traits.wall)
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    across = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None]
    lamp = np.float32(np.sign(traits.light.key_direction[0]))
    wall = (top + (bottom - top) * down) * (1 + 0.06 * lamp * across)
    return np.asarray(np.clip(wall, 0, 1), np.float32)
