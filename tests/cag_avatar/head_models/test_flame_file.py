from __future__ import annotations

import logging
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from cag_avatar.errors import InputError
from cag_avatar.head_models import REGIONS
from cag_avatar.head_models.flame_file import FlameExtras, load_flame
from cag_avatar.head_models.unwrapping import overlapping_pairs
from tests.cag_avatar.head_models.flame_files import OFFSET, flame_arrays, write_flame_pickle


@pytest.fixture(scope="module")
def arrays() -> dict:
    return flame_arrays(rows=10, columns=14)


def test_the_atlas_made_for_it_does_not_overlap(arrays: dict, tmp_path: Path) -> None:
    flame = load_flame(write_flame_pickle(tmp_path / "f.pkl", arrays))
    assert len(overlapping_pairs(flame.uv.double().numpy()[flame.face_uv.numpy()])) == 0
    eyes = [set(flame.face_uv[flame.region_faces(n)].flatten().tolist())
            for n in ("eye_left", "eye_right", "face_skin")]  # fmt: skip
    assert not eyes[0] & eyes[1]
    assert not (eyes[0] | eyes[1]) & eyes[2]


def test_its_own_texture_coordinates_are_taken(arrays: dict, tmp_path: Path) -> None:
    count = len(arrays["f"])
    uv = np.random.default_rng(0).random((3 * count, 2))
    corner = np.random.default_rng(1).permutation(3 * count).reshape(-1, 3)
    held = arrays | {"vt": uv, "ft": corner}
    flame = load_flame(write_flame_pickle(tmp_path / "f.pkl", held))
    np.testing.assert_array_equal(flame.face_uv.numpy(), corner)
    # The same from head_template.obj, whose triangles come in another order and turn of corners.
    lines = [f"v {x} {y} {z}" for x, y, z in arrays["v_template"]]
    lines += [f"vt {u:.9f} {v:.9f}" for u, v in uv]
    for index in np.random.default_rng(2).permutation(count):
        pairs = np.roll(np.stack([arrays["f"][index], corner[index]], 1), index % 3, axis=0)
        lines.append("f " + " ".join(f"{v + 1}/{t + 1}/1" for v, t in pairs))
    obj = tmp_path / "head_template.obj"
    obj.write_text("\n".join(lines))
    plain = write_flame_pickle(tmp_path / "g.pkl", arrays)
    other = load_flame(plain, extras=FlameExtras(template=obj))
    np.testing.assert_array_equal(other.face_uv.numpy(), corner)
    np.testing.assert_allclose(other.uv.numpy(), flame.uv.numpy(), atol=1e-6)
    obj.write_text("\n".join(lines[:-1]))
    with pytest.raises(InputError, match=rf"head_template\.obj: not {count} triangles"):
        load_flame(plain, extras=FlameExtras(template=obj))


def test_masks_say_the_regions(arrays: dict, tmp_path: Path) -> None:
    points = arrays["v_template"] - OFFSET
    lips = np.flatnonzero(np.linalg.norm(points - [0, -0.06, 0.03], axis=1) < 0.04)
    masks = {"lips": lips, "scalp": np.flatnonzero(points[:, 1] > 0.05), "left_ear": np.array([1])}
    path = tmp_path / "FLAME_masks.pkl"
    path.write_bytes(pickle.dumps(masks, protocol=2))
    model = write_flame_pickle(tmp_path / "f.pkl", arrays)
    flame = load_flame(model, extras=FlameExtras(masks=path))
    inside = np.isin(arrays["f"].astype(int), lips).all(1)
    assert inside.any()
    np.testing.assert_array_equal(
        flame.face_region.numpy()[inside], np.full(inside.sum(), REGIONS.index("lips"))
    )
    assert len(flame.region_faces("lips")) == inside.sum()
    masks["lips"] = np.array([len(points)])
    path.write_bytes(pickle.dumps(masks, protocol=2))
    with pytest.raises(InputError, match=r"FLAME_masks\.pkl: 'lips' points at vertices"):
        load_flame(model, extras=FlameExtras(masks=path))


def test_eyelids_come_from_files_too(
    arrays: dict, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bare = {k: v for k, v in arrays.items() if not k.endswith("eyelid")}
    model = write_flame_pickle(tmp_path / "f.pkl", bare)
    with caplog.at_level(logging.WARNING):
        assert (load_flame(model).eyelid_basis == 0).all()
    assert "no eyelid shapes" in caplog.text
    np.save(tmp_path / "l_eyelid.npy", arrays["l_eyelid"])
    np.save(tmp_path / "r_eyelid.npy", arrays["r_eyelid"])
    extras = FlameExtras(tmp_path / "l_eyelid.npy", tmp_path / "r_eyelid.npy")
    found = load_flame(model, extras=extras).eyelid_basis.numpy()
    expected = np.stack([arrays["l_eyelid"], arrays["r_eyelid"]])
    np.testing.assert_allclose(found, expected, atol=1e-7)
    np.save(tmp_path / "r_eyelid.npy", np.zeros((3, 3)))
    with pytest.raises(InputError, match=r"r_eyelid\.npy: .* shape \[3, 3\]"):
        load_flame(model, extras=extras)
    np.save(tmp_path / "r_eyelid.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(InputError, match=r"r_eyelid\.npy: not a readable"):
        load_flame(model, extras=extras)


def test_a_file_with_the_right_eye_first(arrays: dict, tmp_path: Path) -> None:
    order = [0, 1, 2, 4, 3]
    swapped = arrays | {
        "weights": arrays["weights"][:, order],
        "J_regressor": arrays["J_regressor"].toarray()[order],
    }
    flame = load_flame(write_flame_pickle(tmp_path / "f.pkl", swapped))
    assert flame.joint_names == ("torso", "head", "jaw", "eye_right", "eye_left")
    assert flame.expression_names[106] == "eyeRight0"
    assert float(flame.vertices[flame.eye_left, 0].min()) > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"posedirs": None}, "not a FLAME model, lacks posedirs"),
        ({"shapedirs": np.zeros((3, 3, 3))}, "'shapedirs' has shape"),
        ({"weights": np.zeros((3, 5))}, "'weights' has shape"),
        ({"posedirs": np.zeros((3, 3, 9))}, "'posedirs' has shape"),
        ({"kintree_table": np.array([[0, 0, 1, 2, 3], [0, 1, 2, 3, 4]])}, "'kintree_table' is not"),
        ({"f": np.array([[0, 1, 10**6]])}, "'f' points at vertices"),
        ({"v_template": "text"}, "'v_template' is str"),
        ({"scale": 1000.0}, "FLAME's unit is the metre"),
        ({"nan": True}, "holds NaN or infinity"),
    ],
)
def test_what_is_not_flame_is_named(
    arrays: dict, tmp_path: Path, change: dict, message: str
) -> None:
    held = dict(arrays)
    if "scale" in change:
        held["v_template"] = held["v_template"] * 1000
    elif "nan" in change:
        held["posedirs"] = np.full_like(held["posedirs"], np.nan)
    else:
        held |= change
        held = {k: v for k, v in held.items() if v is not None}
    with pytest.raises(InputError, match=rf"f\.pkl: .*{message}"):
        load_flame(write_flame_pickle(tmp_path / "f.pkl", held))


class Trap:
    def __reduce__(self):
        return os.system, ("touch marker",)


def test_a_hostile_model_is_refused(
    arrays: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_flame_pickle(tmp_path / "f.pkl", arrays | {"bs_style": Trap()})
    with pytest.raises(InputError, match=r"f\.pkl: refused, the pickle wants to use '\w+.system'"):
        load_flame(path)
    assert not (tmp_path / "marker").exists()
