from __future__ import annotations

import builtins
import contextlib
import io
import os
import pickle
import subprocess
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from cag_avatar.errors import InputError
from cag_avatar.head_models.restricted_pickle import as_array, load_arrays
from tests.cag_avatar.head_models.flame_files import chumpy


class Calls:
    """Pickles as a call."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


def named(module: str, name: str) -> bytes:
    """A protocol 4 pickle {'x': module.name('touch marker')}: names may have dots."""
    return (b"\x80\x04}" + short("x") + short(module) + short(name) + b"\x93"
            + short("touch marker") + b"\x85Rs.")  # fmt: skip


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that hostile pickles make when they run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "marker"


HOSTILE = {
    "os.system": Calls(os.system, "touch marker"),
    "builtins.eval": Calls(builtins.eval, "open('marker', 'w')"),
    "builtins.exec": Calls(builtins.exec, "open('marker', 'w')"),
    "builtins.open": Calls(open, "marker", "w"),
    "builtins.getattr": Calls(getattr, "text", "upper"),
    "subprocess.Popen": Calls(subprocess.Popen, ["touch", "marker"]),
    "numpy.load": Calls(np.load, "marker"),
    "numpy.save": Calls(np.save, "marker", 1),
    "numpy.testing": Calls(np.testing.assert_equal, 1, 1),
    "numpy.fromfile": Calls(np.fromfile, "marker"),
}


@pytest.mark.parametrize("name", list(HOSTILE))
@pytest.mark.parametrize("protocol", [2, 4])
def test_calls_are_refused_by_name_and_not_run(marker: Path, name: str, protocol: int) -> None:
    payload = HOSTILE[name]
    path = marker.with_name("flame.pkl")
    path.write_bytes(pickle.dumps({"v_template": payload, "f": np.eye(3)}, protocol=protocol))
    with pytest.raises(InputError, match=r"flame\.pkl: refused, the pickle wants to use '") as why:
        load_arrays(path)
    assert name.rpartition(".")[2] in str(why.value)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Calls(os.system, "touch marker")))  # the trap does spring
    assert marker.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("numpy", "ndarray.tofile"),
        ("numpy", "lib.format.open_memmap"),
        ("numpy.core.multiarray", "_reconstruct.__class__"),
        ("scipy.sparse", "csc_matrix.__init__.__globals__"),
        ("scipy.sparse.linalg", "csc_matrix"),
        ("chumpy.ch", "os.system"),
        ("chumpyx", "Ch"),
        ("os.path", "os.system"),
        ("posix", "system"),
        ("collections", "namedtuple"),
    ],
)
def test_names_near_the_allowed_ones_are_refused(marker: Path, module: str, name: str) -> None:
    path = marker.with_name("flame.pkl")
    path.write_bytes(named(module, name))
    with pytest.raises(InputError, match=f"refused, the pickle wants to use '{module}.{name}'"):
        load_arrays(path)
    assert not marker.exists()


def test_allowed_functions_cannot_be_misused(marker: Path) -> None:
    path = marker.with_name("flame.pkl")
    system = b"cchumpy.ch\nCh\n"  # a stand-in class that the pickle owns
    streams = [
        # copy_reg._reconstructor of something that is not a record
        b"\x80\x02}U\x01x" + b"ccopy_reg\n_reconstructor\n(cnumpy\ndtype\nNNtRs.",
        # a dtype made of something other than its name
        b"\x80\x02}U\x01x" + b"cnumpy\ndtype\n((U\x02f8K\x02ttRs.",
        # a state for a function, to change what it does
        b"\x80\x02}U\x01x" + b"cnumpy\ndtype\n}U\x09_functionU\x02f8sbs.",
        # attributes of a class: a dictionary for its instances' data, which does nothing
        b"\x80\x02}U\x01x" + b"c_codecs\nencode\n(U\x01aU\x06base64tRs.",
    ]
    for stream in streams:
        path.write_bytes(stream)
        with pytest.raises(InputError, match=r"flame\.pkl: (refused|not a readable pickle)"):
            load_arrays(path)
    # A class's __setstate__ replaced by the pickle: the next file is none the wiser.
    path.write_bytes(
        b"\x80\x02}(U\x01x" + system + b"(}U\x0c__setstate__cnumpy\ndtype\nst\x86bU\x01yK\x01u."
    )
    with contextlib.suppress(InputError):
        load_arrays(path)
    with chumpy() as (ch, _):
        leaf = ch()
        leaf.x = np.arange(3.0)
        path.write_bytes(pickle.dumps({"a": leaf}, protocol=2))
    np.testing.assert_array_equal(as_array(load_arrays(path)["a"], path, "a"), np.arange(3.0))


def test_python_2_pickles(tmp_path: Path) -> None:
    """An array as numpy wrote it under Python 2: its bytes are an 8-bit string."""
    data = np.array([1.5, -2.25]).tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
        b"(K\x01K\x02\x85cnumpy\ndtype\n(U\x02f8K\x00K\x01tR"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x10" + data + b"tb"
    )
    path = tmp_path / "old.pkl"
    path.write_bytes(b"\x80\x02}U\x01x" + array + b"s.")
    np.testing.assert_array_equal(as_array(load_arrays(path)["x"], path, "x"), [1.5, -2.25])


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_data_of_every_kind(tmp_path: Path, protocol: int) -> None:
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(4, 6)) * (rng.random((4, 6)) > 0.5)
    held = OrderedDict(
        ints=np.arange(5, dtype=np.uint32), half=np.float32(0.5), fortran=np.asfortranarray(dense),
        flags=np.array([True, False]), text="lbs", number=3, listed=[1, 2],
        **{kind: getattr(sparse, f"{kind}_matrix")(dense) for kind in ("csc", "csr", "coo")},
    )  # fmt: skip
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps(held, protocol=protocol))
    back = load_arrays(path)
    for kind in ("csc", "csr", "coo", "fortran"):
        np.testing.assert_array_equal(as_array(back[kind], path, kind), dense)
    np.testing.assert_array_equal(as_array(back["ints"], path, "ints"), np.arange(5))
    assert as_array(back["half"], path, "half") == 0.5
    with pytest.raises(InputError, match="'text' is str, not an array of numbers"):
        as_array(back["text"], path, "text")


def test_a_broken_sparse_matrix_is_named(tmp_path: Path) -> None:
    matrix = sparse.csc_matrix(np.eye(3))
    matrix.indices = np.array([0, 1, 70], np.int32)
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps({"J_regressor": matrix}, protocol=2))
    with pytest.raises(InputError, match=r"data\.pkl: 'J_regressor' is damaged"):
        as_array(load_arrays(path)["J_regressor"], path, "J_regressor")


def test_a_chumpy_expression_of_another_kind_is_named(tmp_path: Path) -> None:
    with chumpy() as (ch, _):
        sum_of = ch()
        sum_of.terms = 3
        path = tmp_path / "data.pkl"
        path.write_bytes(pickle.dumps({"v_template": sum_of}, protocol=2))
    with pytest.raises(InputError, match=r"'v_template' is a chumpy\.ch\.Ch, which this reader"):
        as_array(load_arrays(path)["v_template"], path, "v_template")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x02}", b"\x80\x02]."])
def test_what_is_no_pickle_of_a_dictionary(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.pkl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"data\.pkl: (not a readable pickle|holds a list)"):
        load_arrays(path)
    with pytest.raises(InputError, match=r"none\.pkl: cannot be read"):
        load_arrays(tmp_path / "none.pkl")


def test_a_hostile_npz_is_refused(marker: Path) -> None:
    stream = io.BytesIO()
    trap = np.array([Calls(os.system, "touch marker")], dtype=object)
    np.savez(stream, v_template=trap)
    path = marker.with_name("flame.npz")
    path.write_bytes(stream.getvalue())
    with pytest.raises(InputError, match=r"flame\.npz: refused"):
        load_arrays(path)
    assert not marker.exists()
    path.write_bytes(stream.getvalue()[:-20] + b"x" * 20)
    with pytest.raises(InputError, match=r"flame\.npz"):
        load_arrays(path)
