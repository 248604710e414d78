"""What builds say."""

import pytest

from meshllm.engine.rpc_build_log import BuildProgress, read_progress, why_failed


@pytest.mark.parametrize(
    ("said", "progress"),
    [
        (b"  [3/274] /usr/bin/g++ -c x\n  [4/274] /usr/bin/g++\n", BuildProgress(step="compiling", done=4, total=274)),
        (b"[ 12%] Building CXX object\n", BuildProgress(step="compiling", done=12, total=100)),
        (b"  Installing build dependencies: started\n", BuildProgress(step="fetching tools")),
        (b"array[3/4]\n", None),
    ],
)
def test_progress_is_read_from_ninja_make_and_pip(said: bytes, progress: BuildProgress | None) -> None:
    """Whichever tool builds."""
    assert read_progress(said) == progress


def test_fault_of_a_gpu_build_says_how_to_leave_the_gpu_out() -> None:
    """CMake says it over several lines."""
    lines = (
        "CMake Error at a/CMakeLists.txt:178 (target_link_libraries):",
        '  Target "ggml-cuda" links to:',
        "",
        "   CUDA::cublas",
    )

    said = why_failed(lines, ("-DGGML_CUDA=ON",))

    assert "--cpu leaves the GPU out" in said
    assert 'Target "ggml-cuda" links to:' in said
