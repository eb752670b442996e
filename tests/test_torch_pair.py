"""pawlib/__init__.py: a torch and a torchaudio that do not fit are explained in one message."""

import builtins
import sys

import pytest
import torch
import torchaudio

import pawlib


def test_the_installed_pair_fits():
    pawlib._check_torch_pair()


@pytest.mark.parametrize(
    "error", [OSError("libc10_cuda.so: cannot open shared object file"), ImportError("undefined symbol: _ZN3c10")]
)
def test_torchaudio_that_does_not_load_is_explained_with_the_cure(monkeypatch, error):
    real_import = builtins.__import__

    def fails_for_torchaudio(name, *args, **kw):
        if name == "torchaudio":
            raise error
        return real_import(name, *args, **kw)

    monkeypatch.delitem(sys.modules, "torchaudio")
    monkeypatch.setattr(builtins, "__import__", fails_for_torchaudio)
    with pytest.raises(ImportError) as raised:
        pawlib._check_torch_pair()
    message = str(raised.value)
    assert str(error) in message
    assert torch.__version__ in message
    assert "one is a CPU-only build and the other a CUDA build" in message
    assert "Install a matched pair: `pip install torch==2.11.* torchaudio==2.11.*`" in message
    assert raised.value.__cause__ is error


def test_versions_that_differ_are_named_with_the_cure(monkeypatch):
    monkeypatch.setattr(torchaudio, "__version__", "2.10.1+cpu")
    with pytest.raises(ImportError, match=r"and torchaudio 2\.10\.1\+cpu are no matched pair\. Install a matched pair"):
        pawlib._check_torch_pair()


def test_builds_and_patch_versions_may_differ(monkeypatch):
    major_minor = ".".join(torch.__version__.split(".")[:2])
    monkeypatch.setattr(torchaudio, "__version__", f"{major_minor}.9+cu128")
    pawlib._check_torch_pair()
