"""What a node that knows nobody is told about others."""

from meshllm.core.ids import NodeId
from meshllm.core.serving.splits.neighbourhood import alone


def test_who_is_alone_has_nobody_to_share_with() -> None:
    """Before the mesh's other half is there."""
    nobody = alone()

    assert (tuple(nobody.lenders()), nobody.said(NodeId("p")), nobody.rights_of(NodeId("p"))) == ((), None, None)
