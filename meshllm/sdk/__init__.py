"""A node of the mesh within a program: started by it, asked by it, ended with it."""

from meshllm.sdk.builder import MeshNodeBuilder, Model
from meshllm.sdk.errors import MeshNodeError, NodeStartError, RequestError
from meshllm.sdk.node import Answer, MeshNode

__all__ = ["Answer", "MeshNode", "MeshNodeBuilder", "MeshNodeError", "Model", "NodeStartError", "RequestError"]
