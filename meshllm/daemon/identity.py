"""Who this node is: its key from the state folder, made at the first start.

Owns when a key is made and what is said when the first version's id ends. Decides that a damaged key stops the start.
Doesn't know meshes.
"""

import logging

from meshllm.daemon.mesh_files import MeshFiles
from meshllm.transport.identity import Identity, IdentityError

log = logging.getLogger(__name__)


def own_identity(files: MeshFiles, *, is_client: bool) -> Identity:
    """Return this node's identity; a client's is a fresh one that nobody keeps. Raises StartError."""
    if is_client:
        return Identity.generate()
    pem = files.key()
    if pem is not None:
        try:
            return Identity.from_pem(pem)
        except IdentityError as error:
            raise files.damaged_key(str(error)) from error
    made = Identity.generate()
    files.keep_new_key(made.to_pem())
    if old := files.first_version_id():
        log.warning(
            "this node is known by a key from now on, and so by another id id=%s before=%s (its models and settings "
            "are as they were)", made.node, old,
        )  # fmt: skip
    return made
