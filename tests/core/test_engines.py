"""What an engine's build is good for."""

from dataclasses import replace

from meshllm.core.engines import RpcBuild
from tests.core.builders import A_BUILD, A_GPU_BUILD

RPC = RpcBuild(version="7.0.0 b1", server="/bin/llama-server", worker="/bin/ggml-rpc-server")


def test_a_gpu_s_node_shares_models_only_where_its_other_engine_uses_the_gpu_too() -> None:
    """What it lends is counted on the GPU."""
    with_gpu = replace(RPC, devices=("CUDA0",))

    assert A_BUILD.sharing is None
    assert replace(A_BUILD, rpc=RPC).sharing is RPC
    assert replace(A_GPU_BUILD, rpc=RPC).sharing is None
    assert replace(A_GPU_BUILD, rpc=with_gpu).sharing is with_gpu
