"""Importing costs nothing and touches nothing: no environment, no connection, no heavy package."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("api", "cli", "jobs", "model", "worker")
START_FILES = ("api.wsgi", "worker.celery_app")

IMPORT_ALL = """
import importlib, pathlib
def import_all(package):
    for file in sorted(pathlib.Path(package).rglob("*.py")):
        name = ".".join(file.with_suffix("").parts).removesuffix(".__init__")
        if name not in {start_files} and not name.endswith("__main__"):
            importlib.import_module(name)
""".replace("{start_files}", repr(START_FILES))

BLOCK = """
import sys
for name in {names}:
    sys.modules[name] = None
"""

FORBID_CONNECTIONS = """
import sys
def forbid(event, arguments):
    if event in ("socket.connect", "sqlite3.connect"):
        raise RuntimeError(f"{event} at import: {arguments}")
sys.addaudithook(forbid)
"""


def _python(code: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def _reads_environment(file: Path) -> bool:
    names = {"environ", "environb", "getenv", "getenvb"}
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {f"os.{name}" for name in names}:
            return True
        if isinstance(node, ast.ImportFrom) and node.module == "os" and names & {a.name for a in node.names}:
            return True
    return False


def test_only_the_settings_read_the_environment() -> None:
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    readers = {str(file.relative_to(ROOT)) for file in files if _reads_environment(file)}
    assert readers <= {"jobs/settings.py"}


def test_the_api_runs_where_neither_model_nor_torch_is_installed() -> None:
    _python(
        BLOCK.format(names=("model", "openvino", "opentelemetry", "torch")) + IMPORT_ALL + "import_all('api')"
    )


def test_the_core_runs_where_no_server_client_is_installed() -> None:
    names = ("boto3", "botocore", "celery", "flask", "model", "openvino", "opentelemetry", "psycopg", "redis")
    embedded = "import jobs.intake, jobs.settings, jobs.store, jobs.queue.embedded, jobs.objects"
    untraced = "; from jobs import tracing; assert tracing.begin('x') is None and not tracing.trace_ids()"
    _python(BLOCK.format(names=(*names, "torch")) + embedded + untraced)


def test_no_import_opens_a_connection() -> None:
    _python(FORBID_CONNECTIONS + IMPORT_ALL + f"[import_all(package) for package in {PACKAGES}]")


def test_the_command_starts_light() -> None:
    heavy = {"boto3", "celery", "flask", "openvino", "torch"}
    assert _python(f"import sys, cli.main; print(sorted({heavy} & set(sys.modules)))").strip() == "[]"


def test_bucket_events_are_consumed_where_nothing_of_the_model_is_installed() -> None:
    names = ("model", "numpy", "openvino", "PIL", "pi_heif", "torch")
    _python(BLOCK.format(names=names) + "import cli.events, cli.rules, jobs.queue.sqs, worker.bucket_events")
