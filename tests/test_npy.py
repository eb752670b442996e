"""Arrays of strings are read, however NumPy saved them; nothing that a file wants to run is run."""

import io
import os
import pickle

import numpy as np
import pytest

from pawlib.bench import npy

NAMES = ["1_0", "1_2", "20_11"]


class Malicious:
    """Pickles as a call of anything with anything."""

    def __init__(self, call, *arguments):
        self.told = call, arguments

    def __reduce__(self):
        return self.told


def with_head(path, payload, shape=(3,)):
    """A .npy file that says it is an array of objects, and then holds `payload`."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|O", "fortran_order": False, "shape": shape})
    path.write_bytes(head.getvalue() + payload)
    return path


@pytest.mark.parametrize("kind", [str, object])
@pytest.mark.parametrize("shape", [(3,), (3, 1), (1, 3)])
def test_strings_come_back_however_they_were_saved(kind, shape, tmp_path):
    array = np.array(NAMES, dtype=kind).reshape(shape)
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    found = npy.strings(tmp_path / "a.npy")
    assert found.shape == shape and found.dtype.kind == "U"
    assert found.ravel().tolist() == NAMES


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_and_both_of_numpys_names_are_read(protocol, tmp_path):
    payload = pickle.dumps(np.array(NAMES, dtype=object), protocol=protocol)
    assert npy.strings(with_head(tmp_path / "a.npy", payload)).tolist() == NAMES
    if protocol < 4:  # these say no length beside a name, so that it can be exchanged
        old = payload.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
        assert old != payload
        assert npy.strings(with_head(tmp_path / "a.npy", old)).tolist() == NAMES


@pytest.mark.parametrize("protocol", [2, 4])
def test_numpys_own_strings_and_letters_beyond_ascii_are_read(protocol, tmp_path):
    names = ["a", "Dvořák", "日本"]
    payload = pickle.dumps(np.array([np.str_(one) for one in names], dtype=object), protocol=protocol)
    assert npy.strings(with_head(tmp_path / "a.npy", payload)).tolist() == names


def test_columns_before_rows_come_back_in_order(tmp_path):
    array = np.asfortranarray(np.array([["a", "b", "c"], ["d", "e", "f"]], dtype=object))
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    assert npy.strings(tmp_path / "a.npy").tolist() == array.tolist()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "call",
    [
        lambda target: Malicious(os.mkdir, target),
        lambda target: Malicious(eval, f"__import__('os').mkdir({target!r})"),
        lambda target: Malicious(getattr, os, "mkdir"),
        lambda target: Malicious(np.load, target),
    ],
)
def test_a_malicious_pickle_is_refused_before_it_runs(protocol, call, tmp_path):
    target = tmp_path / "was_here"
    bad = call(str(target))
    inside = np.empty(3, dtype=object)
    inside[:] = ["1_0", bad, "1_2"]
    for content in (bad, inside):
        try:
            payload = pickle.dumps(content, protocol=protocol)
        except (TypeError, pickle.PicklingError):  # a module as argument cannot be pickled: take its name
            payload = pickle.dumps(Malicious(getattr, "os", "mkdir"), protocol=protocol)
        with pytest.raises(ValueError, match="a.npy is no array of strings: it wants .*nothing of it was run"):
            npy.strings(with_head(tmp_path / "a.npy", payload))
    assert not target.exists()


def test_the_malicious_pickle_does_run_elsewhere(tmp_path):
    pickle.loads(pickle.dumps(Malicious(os.mkdir, str(tmp_path / "was_here"))))
    assert (tmp_path / "was_here").is_dir(), "or the test above shows nothing"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (np.array(["1_0", 3, None], dtype=object), "something else"),
        (np.array(["1_0", ["1_1"], b"1_2"], dtype=object), "something else"),
        (["1_0", "1_1", "1_2"], "something else"),
        (np.array([np.int64(1), np.float32(2), "a"], dtype=object), "something else"),
        (np.array(NAMES[:2], dtype=object), "promises .*2 strings follow"),
        (np.array([1.5, 2.0, 3.0]), "something else"),
    ],
)
def test_objects_that_are_no_strings_are_refused(content, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        npy.strings(with_head(tmp_path / "a.npy", pickle.dumps(content)))


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\x93NUMPY", b"\x93NUMPY\x09\x00v\x00{}"])
def test_what_is_no_npy_file_is_refused(content, tmp_path):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ValueError, match="a.npy is no array of strings"):
        npy.strings(tmp_path / "a.npy")


def test_a_pickle_that_was_cut_or_damaged_anywhere_is_an_error_or_the_same_strings(tmp_path):
    payload = pickle.dumps(np.array(NAMES, dtype=object), protocol=2)
    for end in range(len(payload)):
        with pytest.raises(ValueError, match="a.npy is no array of strings"):
            npy.strings(with_head(tmp_path / "a.npy", payload[:end]))
    rng = np.random.default_rng(0)
    for _ in range(2000):
        at, value = int(rng.integers(len(payload))), int(rng.integers(256))
        try:
            found = npy.strings(with_head(tmp_path / "a.npy", payload[:at] + bytes([value]) + payload[at + 1 :]))
        except ValueError as error:
            assert "a.npy is no array of strings" in str(error)
        else:
            assert found.dtype.kind == "U" and found.size == 3
