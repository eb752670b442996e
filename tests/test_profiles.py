"""Profiles for clusters: what a job is asked for, by dry run; the executors themselves are extras and not needed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PROFILES = ROOT / "notebooks" / "runs" / "profiles"


def jobs_of(tmp_path, name, *words):
    """{rule: {resource: value, "threads": n}} of a dry run with a profile, without what belongs to its plugin."""
    told = yaml.safe_load((PROFILES / name / "config.yaml").read_text())
    told = {key: value for key, value in told.items() if key != "executor" and not key.startswith(name)}
    profile = tmp_path / "profile"
    profile.mkdir()
    (profile / "config.yaml").write_text(yaml.safe_dump(told))
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--cores", "16", "--snakefile", ROOT / "Snakefile"]
    command += ["--workflow-profile", profile, "--directory", tmp_path, "--config"]
    command += [f"list={ROOT / 'notebooks' / 'runs' / 'table1.yaml'}", "corpus=twin", "seeds=0", *words]
    done = subprocess.run(
        list(map(str, command)), env=os.environ | {"PAWLIB_DATA": str(tmp_path)}, capture_output=True, text=True,
        cwd=ROOT,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    jobs = {}
    for rule, text in re.findall(r"^rule (\S+):\n((?: .*\n)+)", said, re.MULTILINE):
        lines = dict(re.findall(r"^ +(threads|resources): (.*)$", text, re.MULTILINE))
        jobs[rule] = dict(one.split("=") for one in lines.get("resources", "").split(", ") if "=" in one)
        jobs[rule]["threads"] = int(lines.get("threads", 1))
    return jobs


@pytest.mark.parametrize("name", ["slurm", "kubernetes"])
def test_every_job_of_a_cluster_says_what_it_needs(tmp_path, name):
    assert yaml.safe_load((PROFILES / name / "config.yaml").read_text())["executor"] == name
    jobs = jobs_of(tmp_path, name, "scale=paper", "systems=crnn music_paw")
    (trained,) = (job for rule, job in jobs.items() if ".crnn." in rule)
    (pretrained,) = (job for rule, job in jobs.items() if ".music_paw.fcn_4.pretrain." in rule)
    for job in (trained, pretrained):
        assert job["gpu"] == "1" and job["gpu_manufacturer"] == "nvidia" and job["runtime"] == "2880"
    assert (trained["threads"], pretrained["threads"]) == (4, 16)
    assert int(pretrained["mem_mb"]) > int(trained["mem_mb"]) > 0
    data = [job for rule, job in jobs.items() if rule.startswith(("twin_", "store_"))]
    assert len(data) == 2 and all("gpu" not in job and int(job["runtime"]) > 0 < int(job["mem_mb"]) for job in data)


def test_a_cluster_without_gpus_is_asked_for_none(tmp_path):
    jobs = jobs_of(tmp_path, "slurm", "scale=paper", "systems=crnn", "gpus=0")
    assert len(jobs) > 2 and not any("gpu" in job for job in jobs.values())
