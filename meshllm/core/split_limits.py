"""The written limits about models that several nodes share, and about the engine for it: a part of `limits`.

Owns these numbers. Decides nothing. Doesn't know who keeps to them.
"""

from typing import Final

# -- models that no node holds alone -----------------------------------------------------------------
SPLIT_ROUND_TRIP_S: Final = 0.03  # to a worker at most; two of them at this distance leave nine tokens a second
SPLIT_ROUND_TRIP_STEP_S: Final = 0.002  # round trips are compared in steps: a breath of jitter changes no plan
SPLIT_WORKERS: Final = 7  # of one split; each costs every token two round trips
SPLIT_LAYERS: Final = 10_000  # of one model
SPLIT_SETTLE_S: Final = 3.0  # a model fits nowhere for so long before it is shared: another node may be about to join
SPLIT_AGREE_S: Final = 660.0  # for all workers to start their servers; filling a cache from a disk may take ten minutes
SPLIT_ASK_S: Final = 5.0  # an offer is repeated so often: a connection that was replaced took its last words with it
SPLIT_LOAD_STALL_S: Final = 60.0  # a load that sends no worker a byte for so long has lost one that says nothing
SPLIT_LOOK_S: Final = 2.0  # between two looks at a model that nobody can share yet
SPLIT_REACH_S: Final = 120.0  # how long a host stays connected to whom it needs, unless it needs them again
SPLIT_AGAIN_S: Final = 0.3  # after the first split that was lost: by then its members have said what is free again
SPLIT_RETRY_S: Final = 2.0  # after a split that came to nothing, doubled with each one in a row
SPLIT_RETURN_S: Final = 4.0  # in a pause of up to so long requests wait for the next split; in a longer one nobody does
SPLIT_RETRY_MOST_S: Final = 60.0  # what the pause grows to
SPLIT_FORGOTTEN_S: Final = 30.0  # a host that does not speak of what it is lent for so long has forgotten it
SPLIT_FENCES: Final = 256  # models of which a worker remembers the highest epoch
SPLIT_EPOCH_MOST: Final = 2**53  # of one split's numbers; a larger one is forged

# -- building an engine ------------------------------------------------------------------------------
RPC_BUILD_S: Final = 7200.0  # minutes for processors, an hour or more for some GPUs
RPC_BUILDS_KEPT: Final = 2  # of those in the cache, beside the ones that running nodes use
RPC_HOLD_TRIES: Final = 20  # of a node that wants to hold its build while somebody looks whether it is held
RPC_HOLD_AGAIN_S: Final = 0.05
RPC_BUILD_DISK_BYTES: Final = 3 * 1024**3  # sources, objects and what comes of them
