"""What commands load. Catches: torch, numpy or a web framework creeping onto the path of `--help` or of serving."""

import importlib
import subprocess
import sys

import headrace


def _loaded(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    return {name.split(".")[0] for name in done.stderr.split()}


def test_help_loads_no_heavy_library() -> None:
    loaded = _loaded(
        "sys.argv = ['headrace', '--help']\n"
        "from headrace.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as e:\n    assert not e.code"
    )
    assert not loaded & {"torch", "numpy", "fastapi", "transformers", "sqlalchemy", "pydantic", "httpx", "openvino"}


def test_importing_the_package_loads_only_itself() -> None:
    assert not _loaded("import headrace") & {"numpy", "pydantic", "sqlalchemy", "typer", "httpx", "torch"}


def test_the_control_plane_loads_no_torch() -> None:
    loaded = _loaded("import headrace.server.app")
    assert not loaded & {"torch", "transformers", "peft", "openvino", "pyarrow", "datasets"}


def test_the_worker_loads_no_torch() -> None:
    assert not _loaded("import headrace.serve.worker, headrace.export.backends.openvino") & {
        "torch", "transformers", "peft", "pyarrow", "fastapi", "sqlalchemy",
    }  # fmt: skip


def test_every_public_name_exists() -> None:
    for name in headrace.__all__:
        assert getattr(headrace, name) is not None
    for name, target in headrace._PUBLIC.items():
        module, _, attribute = target.partition(":")
        assert getattr(importlib.import_module(module), attribute) is getattr(headrace, name)
