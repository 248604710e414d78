"""The written limits about prompt caches: a part of `limits`, which shows them with all others.

Owns these numbers. Decides nothing. Doesn't know who keeps to them.
"""

from typing import Final

# -- prompt caches -------------------------------------------------------------------------------------
CACHE_DIVIDE_S: Final = 60.0  # between two looks at demand, where shares follow it
CACHE_HYSTERESIS: Final = 0.1  # of a share: smaller changes are not worth a new division
CACHE_MODELS: Final = 64  # that one node's configuration may name
CACHE_GB_MOST: Final = 1_000_000.0  # of the whole
CACHE_BODY_BYTES: Final = 16_384  # of a change of it
CACHE_REST_S: Final = 10.0  # without a request, before an engine is started anew with another share
CACHE_PAUSE_S: Final = 60.0  # between two such starts that only make a cache larger
CACHE_FULL_SHARE: Final = 0.8  # of its cache in use: then a larger one helps
CACHE_ROOM_SHARE: Final = 0.5  # of the memory that is left beside a model: its cache takes no more, whatever its share
CACHE_LEAST_BYTES: Final = 1_048_576  # of a cache: what a process grows less than this is none worth freeing
CACHE_LOW_HIT_RATE: Final = 0.3  # below it, people are told what helps
CACHE_JUDGED_TOKENS: Final = 512  # of prompts, before a hit rate means anything
CACHE_EVICTIONS_PER_HOUR: Final = 6  # more of them, and people are told

# -- kept completions ----------------------------------------------------------------------------------
COMPLETION_MB_MOST: Final = 65_536  # of kept completions at one node
COMPLETION_BYTES_SHARE: Final = 0.125  # of the room, that one answer takes at most
COMPLETION_BODY_BYTES: Final = 1_048_576  # of a request: larger ones are not looked up, the loop stands still meanwhile

# -- slots on the disk ---------------------------------------------------------------------------------
SLOT_LEAST_TOKENS: Final = 64  # of a conversation: shorter ones are computed as quickly as they are read
SLOTS_SAVE_S: Final = 10.0  # for all slots of an engine that ends; it ends then, whatever is saved
SLOTS_RESTORE_S: Final = 10.0  # for all slots of an engine that was loaded; it is ready then
SLOT_DISK_MB: Final = 1024  # of the disk, that each model has at least, unless its node says otherwise

# -- kept completions at their owners ------------------------------------------------------------------
COMPLETION_SHARED_BYTES: Final = 262_144  # of an answer that another node keeps: both ends read it whole on their loop
COMPLETION_LOOKUP_S: Final = 0.2  # for an owner to say what it has: no miss is slower than this for having asked
COMPLETION_LOOKUP_ROUND_TRIP_S: Final = 0.05  # owners farther away than this are not asked
COMPLETION_LOOKUPS: Final = 16  # under way at one node; requests beyond them ask nobody
COMPLETION_OWNER_PAUSE_S: Final = 5.0  # without lookups at an owner that did not answer in time; doubled each time
COMPLETION_OWNER_PAUSE_MOST_S: Final = 300.0
COMPLETION_SENDS: Final = 16  # answers on their way to owners; those beyond are kept here alone
COMPLETION_SEND_S: Final = 10.0  # for one of them, at both ends
COMPLETION_TAKEN_AT_ONCE: Final = 32  # answers of others that are on their way to an owner, of all nodes together
