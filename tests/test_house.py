"""The rules of the house, checked: who imports whom, what an import costs, what the repository and the wheel hold."""

import ast
import configparser
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGES = ("trackgpt", "train", "eval", "data_tools")
LINT_IMPORTS = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def tracked_files() -> list[Path]:
    """Files of the repository: what git tracks or would track; without git, everything but caches and environments."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode == 0:
        names = [name for name in listed.stdout.split("\0") if name]
    else:
        hidden = re.compile(r"(^|/)(\.venv|\.git|__pycache__|build|dist|[^/]*_cache|[^/]*\.egg-info)(/|$)")
        names = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*")]
        names = [name for name in names if not hidden.search(name)]
    return [ROOT / name for name in sorted(names) if (ROOT / name).is_file()]


def texts() -> list[tuple[Path, str]]:
    """Tracked files that are text, with their text."""
    found = []
    for path in tracked_files():
        data = path.read_bytes()
        if b"\0" not in data:
            found.append((path.relative_to(ROOT), data.decode("utf-8")))
    return found


def settings(name: str = "setup.cfg") -> configparser.ConfigParser:
    """A configuration file of the root, parsed."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / name, encoding="utf-8")
    return parser


def pins() -> dict[str, str]:
    """Exact versions of constraints.txt by canonical package name."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def requirements() -> list[tuple[str, Requirement]]:
    """Every declared dependency with the extra it belongs to ("" for the package itself)."""
    parser = settings()
    groups = {"": parser["options"]["install_requires"], **parser["options.extras_require"]}
    return [(extra, Requirement(line)) for extra, text in groups.items() for line in text.split("\n") if line.strip()]


# Who imports whom


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    """Run the contracts of setup.cfg on the packages that lie in `root`."""
    return subprocess.run(
        [sys.executable, "-c", LINT_IMPORTS, "--no-logo", "--no-cache"], cwd=root, capture_output=True, text=True
    )


def small_house(root: Path, **modules: str) -> Path:
    """Write a tiny tree of the four packages under this project's contracts; `trackgpt__video__reader="import ..."`."""
    shutil.copy(ROOT / "setup.cfg", root)
    placed = ("app", "reasoners", "perception", "data", "video", "geometry")
    for folder in (*PACKAGES, *(f"trackgpt/{name}" for name in placed)):
        (root / folder).mkdir()
        (root / folder / "__init__.py").touch()
    for name in ("types", "errors", "hub", "online"):
        (root / "trackgpt" / f"{name}.py").touch()
    for name, source in modules.items():
        (root / f"{name.replace('__', '/')}.py").write_text(source + "\n")
    return root


def test_imports_of_this_tree_point_down():
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_imports_that_point_down_are_allowed(tmp_path):
    house = small_house(
        tmp_path,
        train__loop="import eval.score, trackgpt.hub",
        eval__score="import trackgpt.app",
        data_tools__convert="import trackgpt.data",
        trackgpt__hub="import trackgpt.online, trackgpt.reasoners, trackgpt.types",
        trackgpt__online="import trackgpt.perception",
        trackgpt__reasoners__brain="import trackgpt.perception, trackgpt.geometry",
        trackgpt__data__reader="import trackgpt.video",
    )
    done = lint_imports(house)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("trackgpt__geometry__boxes", "import trackgpt.data"),
        ("trackgpt__video__reader", "import trackgpt.online"),
        ("trackgpt__types", "import trackgpt.geometry"),
        ("trackgpt__hub", "from trackgpt import app"),
        ("trackgpt__perception__decoder", "import trackgpt.reasoners"),
        ("trackgpt__data__reader", "def read():\n    import trackgpt.hub"),
        ("trackgpt__hub", "import train"),
        ("trackgpt__data__reader", "import data_tools"),
        ("eval__score", "import data_tools"),
        ("data_tools__convert", "import eval"),
        ("eval__score", "import train"),
        ("train__loop", "import data_tools"),
    ],
)
def test_an_import_that_points_up_or_sideways_is_refused(tmp_path, module, source):
    done = lint_imports(small_house(tmp_path, **{module: source}))
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"[12] broken", done.stdout)  # what the fast model must not see has a contract of its own too


def test_a_new_folder_must_be_given_a_place(tmp_path):
    house = small_house(tmp_path)
    (house / "trackgpt/extras").mkdir()
    (house / "trackgpt/extras/__init__.py").touch()
    done = lint_imports(house)
    assert done.returncode == 1
    assert "extras" in done.stdout


def test_importing_the_package_loads_nothing_heavy():
    heavy = ["torch", "transformers", "peft", "av", "cv2", "matplotlib", "scipy", "PIL", "pycocotools"]
    program = f"import sys, trackgpt; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


# What the files are called and hold


def test_every_folder_with_code_is_a_package():
    folders = {path.parent for path in tracked_files() if path.suffix == ".py"}
    inside = [folder for folder in folders if folder.relative_to(ROOT).parts[:1] and folder != ROOT / "tests"]
    missing = [str(folder.relative_to(ROOT)) for folder in inside if not (folder / "__init__.py").exists()]
    assert missing == []


def test_tests_are_flat_and_no_package():
    # An __init__.py here would make pytest import tests/ under the names of the packages it tests.
    assert not (ROOT / "tests/__init__.py").exists()
    assert [str(path) for path in (ROOT / "tests").glob("*/*.py")] == []


def test_no_name_says_nothing():
    empty = {"utils", "util", "misc", "helpers", "helper", "common"}
    named = [path.relative_to(ROOT) for path in tracked_files()]
    assert [str(path) for path in named if empty & {part.split(".")[0] for part in path.parts}] == []
    managers = [
        f"{path}: {node.name}"
        for path, text in texts()
        if path.suffix == ".py"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ClassDef) and node.name.endswith(("Manager", "Helper", "Utils", "Wrapper"))
    ]
    assert managers == []


def test_one_noun_is_one_class():
    """No two public classes of the four packages share a name."""
    named: dict[str, list[str]] = {}
    for path, text in texts():
        if path.suffix == ".py" and path.parts[0] in PACKAGES:
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    named.setdefault(node.name, []).append(str(path))
    assert {name: places for name, places in named.items() if len(places) > 1} == {}


def test_no_file_names_a_machine_or_a_registry():
    # Written in pieces, so that this file passes its own test.
    folders = "|".join(["work", "farm", "root", "home", "Users", "mnt"])
    hosts = "|".join(["pypi" + r"\.org", "python" + "hosted", "download" + r"\.pytorch", "registry" + r"\.npm"])
    flags = "|".join(["--index" + "-url", "--extra-" + "index", "--find" + "-links"])
    pattern = re.compile(rf"(?<![\w.~-])/(?:{folders})/\w|{hosts}|{flags}")
    found = [
        f"{path}:{number}: {line.strip()[:100]}"
        for path, text in texts()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


def test_large_files_are_weights_of_a_small_model():
    sizes = {path.relative_to(ROOT): path.stat().st_size for path in tracked_files()}
    assets = Path("trackgpt/assets")
    large = [f"{path}: {size} bytes" for path, size in sizes.items() if size > 1_500_000 and assets not in path.parents]
    assert large == []
    models: dict[str, int] = {}
    for path, size in sizes.items():
        if assets in path.parents:
            name = path.relative_to(assets).parts[0]
            models[name] = models.get(name, 0) + size
    assert {name: size for name, size in models.items() if size > 16 * 2**20} == {}


def test_text_files_end_with_one_newline():
    ours = [(path, text) for path, text in texts() if text and Path("trackgpt/assets") not in path.parents]
    assert [str(path) for path, text in ours if not text.endswith("\n") or text.endswith("\n\n")] == []


# What is installed


def test_constraints_are_exact_versions_and_leave_torch_alone():
    found = pins()
    assert found["torch"] == "2.13.0"
    assert [version for version in found.values() if not re.fullmatch(r"[0-9][0-9.]*", version)] == []
    assert [name for name in found if name.startswith(("torchvision", "nvidia", "triton", "timm"))] == []


def test_every_dependency_has_a_tested_version_within_its_range():
    found = pins()
    outside = [
        f"{extra}: {wanted} is pinned to {found.get(canonicalize_name(wanted.name))}"
        for extra, wanted in requirements()
        if not wanted.specifier.contains(found.get(canonicalize_name(wanted.name), "0"))
    ]
    assert outside == []
    assert {extra for extra, _ in requirements()} == {
        "",
        "train",
        "wandb",
        "rl",
        "eval",
        "quantised",
        "check",
        "onnx",
        "sentencepiece",
        "web",
        "dev",
    }


def test_nothing_asks_for_torchvision():
    assert [
        str(wanted) for _, wanted in requirements() if wanted.name in {"torchvision", "timm", "opencv-python"}
    ] == []


def test_commit_hooks_run_the_versions_that_are_pinned():
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    hooks = dict(re.findall(r'additional_dependencies: \["([\w-]+)==([\w.]+)"\]', text))
    assert {name: hooks[name] for name in ("ruff", "codespell", "import-linter")} == {
        name: pins()[name] for name in ("ruff", "codespell", "import-linter")
    }
    assert text.count("- id:") == len(re.findall("additional_dependencies: .*==", text))


def test_the_wheel_holds_trackgpt_alone_with_its_assets(tmp_path):
    # A copy, so that no build folder is left in the checkout; only the names matter, so the code is left out.
    source = tmp_path / "source"
    for path in tracked_files():
        copy = source / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.touch() if path.suffix in {".py", ".safetensors"} else shutil.copy(path, copy)
    (source / "README.md").touch()
    deep = source / "trackgpt/assets/sample/tokenizer/tokenizer.json"
    deep.parent.mkdir(parents=True)
    deep.touch()
    program = f"from setuptools.build_meta import build_wheel; print(build_wheel({str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    code = {name for name in names if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in code} == {"trackgpt"}
    assert {"trackgpt/py.typed", "trackgpt/assets/sample/tokenizer/tokenizer.json"} <= code
    kept = {str(p.relative_to(ROOT)) for p in tracked_files() if p.is_relative_to(ROOT / "trackgpt")}
    assert kept - code == set()
    entry = next(name for name in names if name.endswith("entry_points.txt"))
    assert "trackgpt = trackgpt.app.cli:main" in zipfile.ZipFile(next(tmp_path.glob("*.whl"))).read(entry).decode()
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_two_commands_of_the_readme_exist():
    listed = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True)
    targets = [line.split()[1] for line in listed.stdout.splitlines()]  # "  make demo    what it does"
    assert targets == [
        "help",
        "demo",
        "test",
        "lint",
        "slow",
        "fuzz",
        "faults",
        "soak",
        "talk",
        "bench",
        "nano",
        "clean",
    ]
    assert "make test" in (ROOT / ".ci/run").read_text()
