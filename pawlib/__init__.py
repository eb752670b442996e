"""Music-PAW: hierarchical part-whole interaction and contrast for music representations.

The method lies flat in this folder, in the paper's order: crops, mels, augment, encoders, interaction, losses, model.
`systems/` holds what it is compared with, `bench/` the plumbing, `show/` what notebooks draw with.
"""


def _check_torch_pair():
    """Import torch and torchaudio once, and explain the cure where the two were not built for each other."""
    import torch

    cure = (
        "Install a matched pair: `pip install torch==2.11.* torchaudio==2.11.*` (runs on a CPU too), or for the small "
        "CPU-only install take BOTH from PyTorch's install page (https://pytorch.org/get-started/locally, CPU chosen)."
    )
    try:
        import torchaudio
    except (OSError, ImportError) as error:
        raise ImportError(
            f"torchaudio does not load beside torch {torch.__version__} ({error}). Most likely one is a CPU-only build "
            f"and the other a CUDA build, or their versions differ. {cure}"
        ) from error
    pair = [module.__version__.split("+")[0].split(".")[:2] for module in (torch, torchaudio)]
    if pair[0] != pair[1]:
        raise ImportError(
            f"torch {torch.__version__} and torchaudio {torchaudio.__version__} are no matched pair. {cure}"
        )


_check_torch_pair()
