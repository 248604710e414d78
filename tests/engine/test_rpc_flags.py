"""How llama.cpp is built, by platform and tools."""

import tomllib
from pathlib import Path

import pytest

from meshllm.engine.rpc_flags import VERSION, build_flags, build_key

ROOT = Path(__file__).parents[2]


def test_builds_are_portable_and_speak_rpc_unless_somebody_wants_them_native() -> None:
    """A native build may use instructions that a virtual machine advertises and refuses."""
    portable, native = build_flags("linux"), build_flags("linux", native=True)

    assert {"-DGGML_RPC=ON", "-DGGML_NATIVE=OFF", "-DCMAKE_INSTALL_RPATH=$ORIGIN/../lib"} <= set(portable)
    assert "-DGGML_NATIVE=ON" in native


@pytest.mark.parametrize(
    ("tools", "flags"),
    [
        ({"nvcc", "nvidia-smi", "glslc"}, {"-DGGML_CUDA=ON", "-DCMAKE_CUDA_ARCHITECTURES=native"}),
        ({"nvcc"}, set()),
        ({"hipcc", "glslc"}, {"-DGGML_HIP=ON"}),
        ({"glslc"}, {"-DGGML_VULKAN=ON"}),
        ({"nvidia-smi"}, set()),
    ],
)
def test_one_kind_of_gpu_is_used_where_its_tools_are(tools: set[str], flags: set[str]) -> None:
    """The maker's own before the general one."""
    found = build_flags("linux", frozenset(tools))

    assert set(found) - set(build_flags("linux")) == flags


def test_a_mac_has_metal_by_itself_and_its_own_word_for_a_folder() -> None:
    """Nothing is to be asked for."""
    found = build_flags("darwin", frozenset({"nvcc"}))

    assert "-DCMAKE_INSTALL_RPATH=@loader_path/../lib" in found
    assert not [flag for flag in found if "CUDA" in flag]


def test_key_changes_with_flags_and_machine() -> None:
    """What was built for another kind of machine is never taken."""
    portable, native = build_flags("linux"), build_flags("linux", native=True)
    keys = {
        build_key(portable, "linux", "x86_64"), build_key(native, "linux", "x86_64"),
        build_key(portable, "linux", "aarch64"), build_key(portable, "darwin", "x86_64"),
    }  # fmt: skip

    assert len(keys) == 4
    assert build_key(portable, "linux", "x86_64") in keys


def test_what_people_install_by_hand_is_what_we_build() -> None:
    """The optional dependency and the page name the same version and the same flags."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    page = (ROOT / "docs" / "sharing-engine.md").read_text()

    assert extras["split"] == [f"llama-cpp-python=={VERSION}"]
    assert f"CMAKE_ARGS='{' '.join(build_flags('linux'))}'" in page
