"""The arrows that must never exist: which part of the workbook may lean on which.

Each rule is a function from one file's syntax tree to the sentences it breaks. It is tried on a planted offender first,
so that a rule that has gone blind fails, and then on every file it speaks of.
"""

import ast
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
METHOD_MAY_IMPORT = {"torch", "torchaudio", "safetensors", "numpy", "pawlib"}
DRAWING = {"matplotlib", "ipywidgets", "IPython", "papermill"}
MEET_IN_MODEL = ("losses", "interaction", "encoders")
READS_ROWS_ONLY = ("61", "62", "63", "64", "65", "66", "70", "73")
CONTESTANTS = {
    "crnn", "fcn_5", "musicnn", "sample_cnn", "sample_cnn_se", "self_attention", "harmonic_cnn", "short_chunk_cnn_res",
    "short_chunk_cnn", "clmr", "cola", "byol_a", "multi_format", "ki_net", "tpp_net", "cqt_net", "fcn_4_cover",
    "fcn_4_on_cqt_net", "dnn", "vgg", "resnet", "densenet", "dn1", "rn1", "rn2", "rn3",
}  # fmt: skip
RELATIVE = re.compile(r"^(\./|\.\./|(data|notebooks|runs|results|checkpoints)/)")


# --- reading ---


def imports(tree, package=""):
    """Dotted names that a file imports, names taken out of a module included; relative ones made absolute.

    `from pawlib import crops` gives pawlib and pawlib.crops: whether crops is a module does not matter to a rule.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and name_of(node.func) in (
            "importlib.import_module",
            "import_module",
            "__import__",
        ):
            yield from (
                one.value for one in node.args[:1] if isinstance(one, ast.Constant) and isinstance(one.value, str)
            )


def name_of(node):
    """Dotted name of an expression: os.getcwd -> "os.getcwd"; "" where it has none."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return ""


def strings(tree):
    """String literals that are not docstrings, nor parts of an f-string that do not begin it."""
    skip = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skip.add(id(node.value))
        if isinstance(node, ast.JoinedStr):
            skip.update(id(part) for part in node.values[1:])
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skip:
            yield node.value


def under(name, *packages):
    """Is the dotted name one of these packages, or inside one?"""
    return any(name == package or name.startswith(package + ".") for package in packages)


def python_files(folder, deep=True):
    """{path: (tree, package)} of a folder of pawlib."""
    found = (ROOT / folder).glob("**/*.py" if deep else "*.py")
    return {
        path.relative_to(ROOT): (
            ast.parse(path.read_text(encoding="utf-8")),
            ".".join(path.relative_to(ROOT).parts[:-1]),
        )
        for path in sorted(found)
    }


def notebook_files():
    """{path: (tree of all code cells, lines that call the shell or IPython)} of committed notebooks."""
    found = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        found[path.relative_to(ROOT)] = notebook_tree(["".join(c["source"]) for c in cells if c["cell_type"] == "code"])
    return found


def notebook_tree(cells):
    """One tree of the cells' Python, and their magic and shell lines apart."""
    lines = "\n".join(cells).splitlines()
    special = [line.strip() for line in lines if line.lstrip().startswith(("%", "!"))]
    python = [re.match(r"\s*", line)[0] + "pass" if line.strip() in special else line for line in lines]
    return ast.parse("\n".join(python)), special


# --- the rules ---


def method_stands_alone(tree, package):
    """The method leans on no contestant, no plumbing and no drawing, and on four libraries only."""
    for name in imports(tree, package):
        if under(name, "pawlib.systems", "pawlib.bench", "pawlib.show"):
            yield f"imports {name}"
        elif name.split(".")[0] not in METHOD_MAY_IMPORT | set(sys.stdlib_module_names):
            yield f"imports {name}, which is neither torch, torchaudio, safetensors nor numpy"


def parts_meet_in_model(tree, package):
    """losses, interaction and encoders do not know each other."""
    siblings = [f"pawlib.{part}" for part in MEET_IN_MODEL]
    yield from (f"imports {name}: they meet in model.py" for name in imports(tree, package) if under(name, *siblings))


def plumbing_knows_no_system_by_name(tree, package):
    """bench builds systems through their registry, and draws nothing."""
    for name in imports(tree, package):
        if under(name, "pawlib.show"):
            yield f"imports {name}"
        if name.startswith("pawlib.systems.") and set(name.split(".")[2:]) - {"build", "names"}:
            yield f"imports {name}"
    yield from (f"names the system {text!r}" for text in strings(tree) if text in CONTESTANTS)


def system_stands_alone(tree, package, path):
    """A contestant takes shared layers from systems/layers.py, nothing from another contestant or the tree's terms."""
    for name in imports(tree, package):
        last = name.split(".")[-1]
        pair = (path.stem, last) == ("fcn_4_on_cqt_net", "cqt_net") or ".cqt_net." in name and "fcn_4_on" in path.stem
        if (
            under(name, "pawlib.systems")
            and set(name.split(".")) & (CONTESTANTS | {"fcn_4"})
            and last != path.stem
            and not pair
        ):
            yield f"imports {name}: shared layers belong in systems/layers.py"
        if under(name, "pawlib.interaction", "pawlib.crops", "pawlib.model", "pawlib.bench", "pawlib.show"):
            yield f"imports {name}"
        if last == "hierarchical_contrastive":
            yield f"imports {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "hierarchical_contrastive":
            yield "uses the hierarchical loss"


def drawing_stays_in_show(tree, package):
    """Only pawlib/show draws."""
    yield from (f"imports {name}" for name in imports(tree, package) if name.split(".")[0] in DRAWING)


def working_folder_is_never_used(tree):
    """No path depends on where the process was started."""
    for node in ast.walk(tree):
        if name_of(node) in ("os.getcwd", "os.chdir", "os.path.abspath") or re.fullmatch(
            r"(\w+\.)?Path\.cwd", name_of(node)
        ):
            yield f"calls {name_of(node)}"
        if isinstance(node, ast.Call) and name_of(node.func) in (
            "Path",
            "pathlib.Path",
            "open",
            "os.listdir",
            "os.scandir",
        ):
            first = node.args[0] if node.args else ast.Constant(".")
            if isinstance(first, ast.Constant) and first.value in (".", "..", ""):
                yield f"calls {name_of(node.func)} on the working folder"
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module == "os"
            and {a.name for a in node.names} & {"getcwd", "chdir"}
        ):
            yield "imports getcwd or chdir"
    yield from (f"holds the relative path {text!r}" for text in strings(tree) if RELATIVE.match(text))


def notebook_calls_no_notebook(tree, special):
    """A notebook hands its results on through files."""
    for line in special:
        if re.match(r"%+(run|load|cd)\b|!.*\.ipynb", line):
            yield f"has the line {line!r}"
    for name in imports(tree):
        if under(name, "papermill", "nbformat", "nbconvert", "nbclient", "import_ipynb", "nbimporter", "notebooks"):
            yield f"imports {name}"
    yield from (f"names the notebook file {text!r}" for text in strings(tree) if text.endswith(".ipynb"))


def reading_notebook_trains_nothing(tree):
    """Table notebooks and the studies read rows."""
    for name in imports(tree):
        if under(name, "pawlib.bench.engine", "pawlib.bench.protocols", "torch.optim", "lightning_fabric", "lightning"):
            yield f"imports {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (node.attr == "backward" or name_of(node).startswith("torch.optim")):
            yield f"uses {node.attr}"


# --- each rule can see ---

METHOD, BENCH = ("pawlib",), ("pawlib.bench",)
SEEN = [
    (method_stands_alone, METHOD, "from pawlib.bench import files", "import torch\nfrom pawlib import crops"),
    (method_stands_alone, METHOD, "import scipy.signal", "import math"),
    (method_stands_alone, METHOD, "from . import systems", "from . import mels"),
    (method_stands_alone, METHOD, "def f():\n    from pawlib import show", "from safetensors.torch import save_file"),
    (parts_meet_in_model, METHOD, "from pawlib import encoders", "from pawlib import crops"),
    (plumbing_knows_no_system_by_name, BENCH, "import pawlib.systems.taggers.musicnn", "from pawlib import systems"),
    (plumbing_knows_no_system_by_name, BENCH, "systems.build('clmr')", "systems.build(slug)"),
    (plumbing_knows_no_system_by_name, BENCH, "from ..show import players", "from pawlib.systems import build"),
    (
        system_stands_alone, ("pawlib.systems.taggers", Path("crnn.py")), "from . import fcn_5",
        "from pawlib.systems import layers",
    ),
    (
        system_stands_alone, ("pawlib.systems.covers", Path("tpp_net.py")), "from .cqt_net import CQTNet",
        "from pawlib.losses import nt_xent",
    ),
    (
        system_stands_alone, ("pawlib.systems.pretraining", Path("clmr.py")), "losses.hierarchical_contrastive(z)",
        "losses.nt_xent(z)",
    ),
    (
        system_stands_alone, ("pawlib.systems.covers", Path("fcn_4_on_cqt_net.py")), "from pawlib import interaction",
        "from .cqt_net import CQTNet",
    ),
    (drawing_stays_in_show, BENCH, "from matplotlib import pyplot", "from tqdm import tqdm"),
    (working_folder_is_never_used, (), "here = os.getcwd()", "here = paths.data()"),
    (working_folder_is_never_used, (), "here = pathlib.Path.cwd()", "here = Path(__file__).parent"),
    (working_folder_is_never_used, (), "open('data/runs/x')", '"""Writes data/runs/x."""\nopen(paths.runs() / "x")'),
    (working_folder_is_never_used, (), "open(f'../data/{name}')", "open(f'{root}/data/{name}')"),
    (working_folder_is_never_used, (), "Path('.')", "Path(root)"),
    (notebook_calls_no_notebook, ([],), "import papermill", "from pawlib.bench import results"),
    (notebook_calls_no_notebook, (["%run 10_pretrain.ipynb"],), "1", ""),
    (reading_notebook_trains_nothing, (), "from pawlib.bench import engine", "from pawlib.bench import results"),
    (reading_notebook_trains_nothing, (), "loss.backward()", "loss.mean()"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "rest", "offender", "honest"), SEEN, ids=lambda value: getattr(value, "__name__", None)
)
def test_rule_sees_its_offender_and_lets_the_honest_pass(rule, rest, offender, honest):
    assert list(rule(ast.parse(offender), *rest))
    if rest and rest[0] and isinstance(rest[0], list):  # the offence lies in the magic line
        rest = ([],)
    assert not list(rule(ast.parse(honest), *rest))


def test_magic_lines_are_read_apart_from_python():
    tree, special = notebook_tree(["%matplotlib inline\nx = 1", "if x:\n    !ls\n    %run other.ipynb"])
    assert special == ["%matplotlib inline", "!ls", "%run other.ipynb"]
    assert len(list(notebook_calls_no_notebook(tree, special))) == 1


# --- the files ---


def broken(files, rule, *, whole=False):
    """ "path: what is wrong", for every file of a set that must not be empty."""
    assert files, "no file was found to check: has the folder moved?"
    return [
        f"{path}: {sentence}"
        for path, parts in files.items()
        for sentence in dict.fromkeys(rule(*parts, *([path] if whole else [])))
    ]


def test_method_stands_alone():
    assert broken(python_files("pawlib", deep=False), method_stands_alone) == []


def test_losses_interaction_and_encoders_meet_in_model():
    files = {path: parts for path, parts in python_files("pawlib", deep=False).items() if path.stem in MEET_IN_MODEL}
    assert len(files) == len(MEET_IN_MODEL)
    assert broken(files, parts_meet_in_model) == []


def test_plumbing_knows_no_system_by_name():
    assert broken(python_files("pawlib/bench"), plumbing_knows_no_system_by_name) == []


def test_systems_stand_alone():
    files = {
        path: parts for path, parts in python_files("pawlib/systems").items() if path.stem in CONTESTANTS | {"fcn_4"}
    }
    if not files:
        pytest.skip("no contestant has been written yet")
    assert broken(files, system_stands_alone, whole=True) == []


def test_only_show_draws():
    files = {path: parts for path, parts in python_files("pawlib").items() if path.parts[1] != "show"}
    assert broken(files, drawing_stays_in_show) == []


def test_package_never_uses_the_working_folder():
    files = {path: parts[:1] for path, parts in python_files("pawlib").items()}
    assert broken(files, working_folder_is_never_used) == []


def test_notebooks_never_use_the_working_folder():
    files = {path: parts[:1] for path, parts in notebook_files().items()}
    assert broken(files, working_folder_is_never_used) == []


def test_notebooks_call_no_notebook():
    assert broken(notebook_files(), notebook_calls_no_notebook) == []


def test_table_notebooks_train_nothing():
    files = {path: parts[:1] for path, parts in notebook_files().items() if path.name.startswith(READS_ROWS_ONLY)}
    assert broken(files, reading_notebook_trains_nothing) == []
