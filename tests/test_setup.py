"""The set-up keeps its promises: one list of dependencies, a lock that fits it, a README that is true of the tree."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def project():
    return tomllib.loads(read("pyproject.toml"))["project"]


def dependencies():
    """Every requirement of pyproject, those of the extras included."""
    extras = project()["optional-dependencies"]
    return [Requirement(line) for line in (*project()["dependencies"], *(line for e in extras.values() for line in e))]


def locked():
    """{package: (version, number of hashes)} of requirements.lock."""
    entries = re.split(r"^(?=[A-Za-z0-9])", read("requirements.lock"), flags=re.MULTILINE)
    found = {}
    for entry in entries:
        pin = re.match(r"([A-Za-z0-9._-]+)==(\S+)", entry)
        if pin:
            found[canonicalize_name(pin[1])] = (pin[2], len(re.findall(r"--hash=sha256:[0-9a-f]{64}", entry)))
    return found


# --- environments ---


def test_environment_file_owns_nothing_but_python_and_pip():
    environment = yaml.safe_load(read("environment.yml"))
    *conda, pip = environment["dependencies"]
    assert [re.split("[=<> ]", line)[0] for line in conda] == ["python", "pip"]
    assert list(pip) == ["pip"] and len(pip["pip"]) == 1
    extras = re.fullmatch(r"-e \.\[([a-z,]+)\]", pip["pip"][0])
    assert set(extras[1].split(",")) == set(project()["optional-dependencies"])


def test_environment_files_agree_on_python():
    (version,) = re.findall(r"python=(\S+)", read("environment.yml"))
    assert Requirement(f"python{project()['requires-python']}").specifier.contains(f"{version}.0")
    assert f"python{version}" in read("Makefile") and f"--python-version {version}" in read("requirements.lock")


def test_lock_pins_every_dependency_inside_its_range():
    pins = locked()
    assert len(pins) > len(dependencies()) > 20
    for requirement in dependencies():
        version, _ = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version.split("+")[0], prereleases=True), f"{requirement}: {version}"


def test_every_pin_has_a_hash():
    assert [name for name, (_, n_hashes) in locked().items() if n_hashes == 0] == []


def test_lock_has_the_build_backend_for_the_editable_install():
    (backend,) = tomllib.loads(read("pyproject.toml"))["build-system"]["requires"]
    assert Requirement(backend).specifier.contains(locked()[Requirement(backend).name][0])


def test_lock_names_no_address():
    assert not re.search(r"://|--(extra-)?index-url|--find-links|^-[if] ", read("requirements.lock"), re.MULTILINE)


# --- README and Makefile ---


def targets():
    """Targets of the Makefile that a person may type."""
    return set(re.findall(r"^([a-z]+):.*## ", read("Makefile"), re.MULTILINE))


def test_every_target_is_phony_and_explained():
    (phony,) = re.findall(r"^\.PHONY: (.*)$", read("Makefile"), re.MULTILINE)
    assert targets() and set(phony.split()) == targets()


def test_readme_and_makefile_name_the_same_targets():
    assert set(
        re.findall(r"\bmake ([a-z]+)\b", " ".join(re.findall(r"`[^`]+`|^    .*$", read("README.md"), re.M)))
    ) == (targets() - {"list"})


def test_readme_maps_exactly_the_notebooks_there_are():
    there = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert set(re.findall(r"\(notebooks/(\w+)\.ipynb\)", read("README.md"))) == there


def test_readme_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", read("README.md"))
    local = [link for link in links if "://" not in link]
    assert local and [link for link in local if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("name", ["Makefile", ".ci/run"])
def test_shell_stops_at_the_first_error(name):
    assert "-euo pipefail" in read(name)


def test_ci_runs_the_tests_and_the_browser():
    assert re.findall(r"^make (\w+)$", read(".ci/run"), re.MULTILINE) == ["test", "browser"]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
