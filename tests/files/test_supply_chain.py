"""What is installed, and what is shipped (S16). Catches: a pin below a version that mends a known hole, a file in the
wheel that runs by itself, a list of hashes that does not fit the pins, a bill of materials without the model."""

import json
import re
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from headrace.workspace import Workspace
from stub_model import plant_stub

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "scripts"))
FLOORS = {  # package: the version that mends it, and what
    "transformers": ("5.3", "CVE-2026-1839, CVE-2026-4372, CVE-2026-5241"),
    "onnx": ("1.21.0", "CVE-2026-27489, CVE-2026-34446, CVE-2026-34447"),
    "starlette": ("0.49.1", "CVE-2025-62727"),
    "h11": ("0.16", "CVE-2025-43859"),
    "torch": ("2.6", "CVE-2025-32434"),
}
NEVER = {"python-multipart", "mlflow", "ray", "gradio", "litellm"}
"""Not among what is installed without asking: no route takes a form, and the others have had one hole after another."""


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").split()
    return {name.lower(): version for name, _, version in (line.partition("==") for line in lines)}


def test_pins_are_at_or_above_what_mends_known_holes() -> None:
    found = pins()
    assert len(found) > 100
    for name, (floor, what) in FLOORS.items():
        assert Version(found[name]) >= Version(floor), f"{name} {found[name]}: {what}"
    assert not NEVER & set(found)


def test_what_the_package_asks_for_is_not_below_them_either() -> None:
    for said in metadata.requires("headrace") or ():
        wish = Requirement(said)
        if wish.name in FLOORS:
            floor = Version(FLOORS[wish.name][0])
            lowest = [Version(one.version) for one in wish.specifier if one.operator in (">=", "==")]
            assert lowest
            assert min(lowest) >= floor, said


@pytest.mark.parametrize("name", ["core", "train"])
def test_every_package_of_a_release_is_pinned_by_hash(name: str) -> None:
    lines = (ROOT / "requirements" / f"{name}.txt").read_text("utf-8").splitlines()
    locked = {}
    for line in lines:
        if not line.startswith("#"):
            found = re.fullmatch(r"([\w.-]+)==([\w.+]+)((?: --hash=sha256:[0-9a-f]{64})+)", line)
            assert found, line
            locked[found[1].replace("_", "-")] = found[2].partition("+")[0]
    allowed = {package.replace("_", "-"): version.partition("+")[0] for package, version in pins().items()}
    assert len(locked) > 40
    assert {package: allowed[package] for package in locked} == locked
    assert not NEVER & set(locked)
    assert ("torch" in locked) is (name == "train")


@pytest.mark.slow
def test_the_wheel_holds_the_packages_files_and_nothing_that_runs_by_itself(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "headrace/signing.py" in names
    for name in names:
        assert name.startswith(("headrace/", "headrace-")), name
        assert not name.endswith((".pth", ".so", ".pyc", ".sh", "sitecustomize.py", "usercustomize.py")), name


def test_a_version_is_in_the_bill_of_materials(workspace: Workspace) -> None:
    import sbom

    version = plant_stub(workspace)
    with workspace.store.write() as conn:
        from headrace.store import runs

        runs.change(conn, version.run_id, params={"task": workspace.task("tone").model_dump(mode="json")})
    found = sbom.of_version(workspace, "1", licence="Apache-2.0")
    assert found["type"] == "machine-learning-model"
    assert found["hashes"] == [{"alg": "SHA-256", "content": version.artifact.removeprefix("sha256:")}]
    assert [one["name"] for one in found["components"]] == ["headrace.json", "stub.json"]
    assert found["pedigree"]["ancestors"][0]["name"] == "minilm-l6"
    assert "sha256:" in json.dumps(found["modelCard"]["modelParameters"]["datasets"])
