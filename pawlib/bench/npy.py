"""Arrays of strings from other people's .npy files, read without running anything that stands in them.

NumPy keeps an array of strings either plainly, or, where it was made with dtype=object, as a *pickle*: a small program
that may import and call whatever it names. SHS100K-SUB's published lists are of the second kind. Here the pickle is
read by an unpickler that knows five names, those by which NumPy says "an array of this shape, with these strings in
it", and for each of them calls a function of this file, none of NumPy or of Python. Any other name is refused before
anything of it is imported.

Told in: notebooks/40_cover_songs.ipynb
"""

import math
import pickle

import numpy as np

MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")  # before NumPy 2, and since
NO_ARRAY = "it says something else than an array of strings"


def strings(path):
    """An array of strings from a .npy file, whether it was saved plainly or as Python objects.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    np.ndarray
        Of the file's shape; of strings, or of whatever plain numbers are in the file.

    Raises
    ------
    ValueError
        If the file is no .npy file, was cut off, or its objects are anything but an array of strings, naming the file
        and what it wanted to import.
    """
    try:
        with open(path, "rb") as file:
            shape, is_of_objects = _header(file)
            if not is_of_objects:
                file.seek(0)
                return np.load(file, allow_pickle=False)
            return _of_objects(file, shape)
    except (ValueError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is no array of strings: {error}") from error
    except (TypeError, AttributeError, IndexError, KeyError, MemoryError, RecursionError) as error:
        raise ValueError(f"{path} is no array of strings, its pickle is damaged: {error!r}") from error


def _header(file):
    """(shape, whether it is an array of objects) of an open .npy file."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"its format is of version {version}, expected 1.0 or 2.0")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype.hasobject


def _of_objects(file, shape):
    """The strings of a pickled array."""
    array = _Unpickler(file).load()
    if not isinstance(array, _Array) or not array.are_strings():
        raise ValueError(NO_ARRAY)
    if array.shape != shape or len(array.items) != math.prod(shape):
        raise ValueError(f"its head promises an array of shape {shape}, and {len(array.items)} strings follow")
    return np.array(array.items, dtype=str).reshape(shape)  # objects are listed row by row, whatever the memory was


class _Array:
    """Stands where the pickle says `numpy.ndarray`: keeps what it is told, and does nothing."""

    shape, items = None, ()

    def __setstate__(self, state):
        _, self.shape, _, _, self.items = state

    def are_strings(self):
        """Whether it was told a shape and a list of strings, and nothing else."""
        return isinstance(self.shape, tuple) and type(self.items) is list and {*map(type, self.items)} <= {str}


class _Dtype:
    """Stands where the pickle says `numpy.dtype`."""

    def __init__(self, name=None, *_):
        self.order, self.name = "<", name

    def __setstate__(self, state):
        self.order = state[1]


def _reconstruct(*_):
    """Stands for NumPy's function of this name, which makes an empty array."""
    return _Array()


def _scalar(dtype, raw):
    """Stands for NumPy's function of this name: a `numpy.str_`, kept as four bytes a letter."""
    if not isinstance(dtype, _Dtype) or not str(dtype.name).startswith("U") or type(raw) is not bytes:
        raise ValueError(NO_ARRAY)
    return raw.decode("utf-32-be" if dtype.order == ">" else "utf-32-le").rstrip("\0")


def _encode(text, encoding="latin1"):
    """Stands for `_codecs.encode`, by which Python 2's protocol writes bytes."""
    if type(text) is not str or encoding != "latin1":
        raise ValueError(NO_ARRAY)
    return text.encode("latin1")


KNOWN = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    **{(module, "_reconstruct"): _reconstruct for module in MULTIARRAY},
    **{(module, "scalar"): _scalar for module in MULTIARRAY},
}


class _Unpickler(pickle.Unpickler):
    """Reads names of `KNOWN` alone, as what stands for them here; nothing is imported."""

    def find_class(self, module, name):
        """What a name of the pickle stands for."""
        if (module, name) not in KNOWN:
            raise pickle.UnpicklingError(
                f"it wants {module}.{name}, which no array of strings needs; nothing of it was run. "
                "Do not open this file with anything else before you know where it is from"
            )
        return KNOWN[module, name]

    def persistent_load(self, _):
        """Objects kept elsewhere: an array of strings has none."""
        raise pickle.UnpicklingError(NO_ARRAY)
