"""The native library: kernels under sanitizers, the C++ example against Python, what is said where it is missing."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import single_run
from sparsepack.errors import RuntimeUnavailableError
from sparsepack.exporters import export
from sparsepack.runtimes import RUNTIMES
from sparsepack.runtimes.native import ENVIRONMENT, instruction_set, library_path, unavailable

ROOT = Path(__file__).resolve().parent.parent
NATIVE = ROOT / "runtimes" / "native"
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def compiler() -> str:
    found = shutil.which(os.environ.get("CXX", "c++"))
    if found is None:
        if os.environ.get("SPARSEPACK_REQUIRE_NATIVE") == "1":
            pytest.fail("no C++ compiler")
        pytest.skip("no C++ compiler")
    return found


def compile_with(*words: object) -> None:
    done = subprocess.run([compiler(), "-std=c++17", *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Object files of everything but the binding to ONNX Runtime, with sanitizers."""
    folder = tmp_path_factory.mktemp("kernels")
    objects = []
    for source in sorted([*(NATIVE / "csrc/core").glob("*.cpp"), *(NATIVE / "csrc/kernels").glob("*.cpp")]):
        objects.append(folder / f"{source.stem}.o")
        options = ["-O1", "-g1", "-ffp-contract=fast", "-Wno-psabi", f"-I{NATIVE / 'csrc'}", *SANITIZERS]
        compile_with(*options, "-c", source, "-o", objects[-1])
    return objects


@pytest.mark.native
@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_packed", "test_conv", "test_linear"])
def test_kernels_against_float64_under_sanitizers(name: str, kernels: list[Path], tmp_path: Path) -> None:
    program = tmp_path / name
    source = ROOT / "tests" / "native" / f"{name}.cpp"
    compile_with("-O1", f"-I{NATIVE / 'csrc'}", *SANITIZERS, source, *kernels, "-o", program, "-pthread")
    for instructions in ("generic", "avx2", "avx512"):
        environment = {**os.environ, "SPARSEPACK_ISA": instructions}
        done = subprocess.run([program], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{instructions}\n{done.stdout}{done.stderr}"
        assert "0 failures" in done.stdout


@pytest.mark.native
@pytest.mark.slow
def test_kernels_against_float64_on_emulated_arm(tmp_path: Path) -> None:
    cross, emulator = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")
    if cross is None or emulator is None:
        pytest.skip("needs g++-aarch64-linux-gnu and qemu-user of the system's packages")
    options = ["-std=c++17", "-O2", "-Wno-psabi", "-ffp-contract=fast", f"-I{NATIVE / 'csrc'}", "-static", "-pthread"]
    kernels = [*(NATIVE / "csrc/core").glob("*.cpp"), *(NATIVE / "csrc/kernels").glob("*.cpp")]
    program = tmp_path / "test"
    for name, cases in (("test_conv", "60"), ("test_linear", "40")):
        words = [cross, *options, ROOT / "tests/native" / f"{name}.cpp", *sorted(kernels), "-o", program]
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        done = subprocess.run([emulator, program, cases], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{cases} cases, 0 failures" in done.stdout


@pytest.mark.native
def test_the_library_says_what_it_computes_with(operators: Path) -> None:
    assert library_path() == operators
    assert instruction_set() in ("generic", "avx2", "avx512", "neon")


@pytest.mark.native
def test_the_library_exports_nothing_but_its_interface(operators: Path) -> None:
    tool = shutil.which("nm")
    if tool is None:
        pytest.skip("no nm")
    listed = subprocess.run([tool, "-D", "--defined-only", operators], capture_output=True, text=True, check=True)
    names = {line.split()[-1] for line in listed.stdout.splitlines()}
    assert {name for name in names if not name.startswith("_")} == {"RegisterCustomOps", "sparsepack_instruction_set"}


def test_a_missing_library_is_reported_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "nothing.so"))
    reason = unavailable()
    assert reason is not None
    assert "nothing.so, which is no file" in reason
    assert RUNTIMES["onnxruntime-sparse-cpu"].available() == reason
    with pytest.raises(RuntimeUnavailableError, match="which is no file"):
        library_path()


def test_a_file_that_is_no_library_is_reported_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.so").write_text("no library")
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "text.so"))
    assert "cannot be loaded" in str(unavailable())


def test_a_package_without_the_library_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    monkeypatch.setattr("sparsepack.runtimes.native.library.NAME", "not_built.so")
    assert "install a C++17 compiler" in str(unavailable())


@pytest.mark.native
def test_the_example_computes_what_python_computes(operators: Path, tmp_path: Path) -> None:
    runtime = next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*"), None)
    if runtime is None:
        pytest.skip("this onnxruntime wheel carries no libonnxruntime.so")
    program = tmp_path / "run_model"
    compile_with("-O1", "-Wall", "-Wextra", "-Werror", NATIVE / "examples/run_model.cpp", "-o", program, "-ldl")
    recipe = single_run(None, "lenet-5-caffe", data="none", method="magnitude", sparsity=0.9, init="kaiming-normal")
    artifact = export(prune(recipe, tmp_path / "run"), "onnx-sparse", tmp_path / "sparse.onnx")
    words = [str(program), str(runtime), str(operators), str(artifact.path), "2", "1", "28", "28"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    printed = [float(word) for word in done.stdout.split()[:4]]
    session = RUNTIMES["onnxruntime-sparse-cpu"].load(artifact, threads=1)
    expected = session.run(np.ones((2, 1, 28, 28), np.float32)).reshape(-1)[:4]
    np.testing.assert_allclose(printed, expected, rtol=1e-4)
    # Without the operators the same program ends with the runtime's message, not a crash.
    done = subprocess.run([program, runtime, "missing.so", artifact.path, "2"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "missing.so" in done.stderr
