"""The committed code is what the contract generates today."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def generated(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.glob("*_pb2*.py*")}


@pytest.mark.slow
def test_generating_again_changes_nothing(tmp_path):
    """`make proto` itself is run, on a copy of the contract: its options are part of what is tested."""
    contract = Path("proto/usance/v1")
    (tmp_path / contract).mkdir(parents=True)
    for path in (REPOSITORY / contract).glob("*.proto"):
        (tmp_path / contract / path.name).write_bytes(path.read_bytes())
    programs = Path(sys.executable).parent
    subprocess.run(
        ["make", "--makefile", REPOSITORY / "Makefile", "--assume-old=setup", f"BIN={programs}", "proto"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    committed = generated(REPOSITORY / contract)
    assert committed
    assert generated(tmp_path / contract) == committed, "run `make proto` and commit what it writes"


def test_every_contract_file_has_its_generated_code():
    contract = REPOSITORY / "proto/usance/v1"
    expected = {
        f"{path.stem}{suffix}"
        for path in contract.glob("*.proto")
        for suffix in ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")
    }
    assert set(generated(contract)) == expected


def test_generated_code_asks_for_no_newer_libraries_than_we_do():
    """Generated code refuses to load with a runtime older than its generator; so must our dependencies."""
    project = (REPOSITORY / "pyproject.toml").read_text()
    code = "".join(generated(REPOSITORY / "proto/usance/v1").values())
    wanted = {"grpcio": _highest(r"GRPC_GENERATED_VERSION = '([\d.]+)'", code)}
    wanted["protobuf"] = _highest(r"# Protobuf Python Version: ([\d.]+)", code)
    for name, version in wanted.items():
        floor = _highest(rf'"{name}>=([\d.]+)"', project)
        assert floor >= version, f"{name}: generated code needs {version}, pyproject.toml allows {floor}"


def _highest(pattern: str, text: str) -> tuple[int, ...]:
    return max(tuple(map(int, found.split("."))) for found in re.findall(pattern, text))
