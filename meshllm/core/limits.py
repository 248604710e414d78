"""Every written limit of the daemon, with those of two subjects beside it; `mesh-llm doctor --limits` prints them.

A queue, buffer, retry or wait that has no line here is a bug. Sizes are bytes, durations seconds.
The reasons stand beside the values; `reference` rows are those of the failure model in docs/.
"""

from typing import Final

from meshllm.core import cache_limits, line_limits, split_limits

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

# -- HTTP, the front door ------------------------------------------------------------------------
HTTP_HEADER_BLOCK_BYTES: Final = 32 * KIB
HTTP_HEADER_FIELDS: Final = 100
HTTP_TARGET_BYTES: Final = 8 * KIB
HTTP_BODY_BYTES: Final = 50 * MIB
HTTP_HEADER_TIMEOUT_S: Final = 10.0  # a header that trickles in is closed after this long
HTTP_BODY_TIMEOUT_S: Final = 60.0  # answered with 408
HTTP_BODY_RATE_BYTES_PER_S: Final = 16 * KIB  # a body slower than this, after the timeout above, gets 408
HTTP_KEEP_ALIVE_TIMEOUT_S: Final = 120.0
HTTP_LINGER_S: Final = 2.0  # input is discarded this long after a final error, so that the client can read it
HTTP_SWEEP_INTERVAL_S: Final = 0.25  # how often deadlines of connections are looked at: one timer for all
HTTP_ACCEPT_BACKLOG: Final = 1024
HTTP_TRAILER_BYTES: Final = 8 * KIB  # dropped
HTTP_CHUNK_HEADER_BYTES: Final = 256  # size line with its extension
HTTP_PIPELINE_DEPTH: Final = 16  # requests held behind the one being answered; reading pauses at it
HTTP_PIPELINE_BYTES: Final = 64 * KIB  # the same, as bytes
HEADS_REMEMBERED: Final = 256  # request heads whose verdict is kept, by their exact bytes
HEAD_REMEMBERED_BYTES: Final = 2 * KIB
CONNECTIONS_TOTAL: Final = 512  # also at most nofile / 4, see F27
CONNECTIONS_PER_ADDRESS: Final = 100  # loopback is exempt: a reverse proxy or 400 local clients are normal
DESCRIPTORS_SHARE: Final = 4
REQUEST_ID_BYTES: Final = 128
SLOW_CLIENT_TIMEOUT_S: Final = 60.0  # a client that takes nothing frees its engine slot after this
DISCONNECT_GRACE_S: Final = 1.0  # client gone -> engine slot free
RELAY_HIGH_WATER_BYTES: Final = 256 * KIB  # unsent bytes to a client at which its engine is paused
RELAY_LOW_WATER_BYTES: Final = 64 * KIB

# -- OpenAI JSON ---------------------------------------------------------------------------------
JSON_DEPTH: Final = 64
JSON_MESSAGES: Final = 4096
JSON_VALUES: Final = 500_000  # commas and brackets of one body; bounds the memory that parsing takes
JSON_CHOICES: Final = 8  # `n`
JSON_STOP_SEQUENCES: Final = 64
JSON_STOP_BYTES: Final = 64 * KIB
JSON_GRAMMAR_BYTES: Final = 256 * KIB
WISHED_CAPABILITIES: Final = 32  # that one request may ask for, and as many that it may prefer
CAPABILITY_CHARS: Final = 64  # of one word: `arabic_nlp`
SESSION_CHARS: Final = 256  # of the name that a client gives its session
CONTEXT_MOST_TOKENS: Final = 2**31 - 1  # that a request may want; what engines count with
MODELS_NAMED: Final = 8  # in an error that says which models there are
MODEL_NAME_BYTES: Final = 512
PROMPT_BYTES_PER_TOKEN: Final = 16  # text above context x this cannot fit: real text has 2 to 6 bytes a token
PROMPT_LOOK_BYTES: Final = 8 * MIB  # of a long prompt's text that is counted; the rest is left to the engine
REMOTE_ERROR_TEXT_BYTES: Final = 200
SSE_LINE_BYTES: Final = 1 * MIB

# -- waiting for a model ---------------------------------------------------------------------------
LOAD_WAIT_S: Final = 300.0  # how long a request waits for its model before 503 model_loading
FIRST_LOOK_WAIT_S: Final = 60.0  # how long an order waits for a node that has just started to know what it has
LOAD_TIMEOUT_S: Final = 300.0  # how long a load may go without progress before it is killed
KEEP_ALIVE_COMMENT_S: Final = 10.0  # SSE comments while a stream waits
WAITING_REQUESTS: Final = 256  # requests held for loading models; more get 503 at once
LOW_WAITING_REQUESTS: Final = 128  # of those, what requests of low priority may take
PRIORITY_MINDED_S: Final = 30.0  # since they met at an engine; for so long a low one waits before it counts as normal
PRIORITY_RESERVE_DIVISOR: Final = 8  # the part of a queue that is kept free for requests of high priority, beyond it
HOST_QUEUE_PER_SLOT: Final = 2  # requests in flight at an engine: slots x (1 + this)

# -- engines ---------------------------------------------------------------------------------------
ENGINE_CONNECT_TIMEOUT_S: Final = 5.0
ENGINE_IDLE_CONNECTIONS: Final = 64  # kept open to one engine; at most one for each slot, they cost it threads
ENGINE_QUEUE_REQUESTS: Final = 64  # may wait at an engine however few its slots: 50 clients at once is one office
ENGINE_ATTEMPTS: Final = 2  # of one request, before its first byte: one that ends engines must not end many
ENGINE_HEAD_BYTES: Final = 32 * KIB  # head of an engine's answer
ENGINE_HEADS_REMEMBERED: Final = 1024
ENGINE_LOST_WAIT_S: Final = 10.0  # for its node to notice that an engine is gone, before 502
WANTED_AGAIN_S: Final = 5.0  # how often a node is told that requests still wait for a model that nobody loads
UNCLAIMED_WAIT_S: Final = 30.0  # for any node to take up a model that requests wait for, before 503
ENGINE_INTERIM_ANSWERS: Final = 8  # 1xx before the answer
ENGINE_ANSWER_HELD_BYTES: Final = 256 * KIB  # answers up to this are sent whole or not at all, so they can be retried
ENGINE_CHUNK_HELD_BYTES: Final = 64 * KIB  # a chunk or an event up to this is sent whole, a larger one in parts
STREAM_JOURNAL_BYTES: Final = 1 * MIB  # text of one stream that is kept so that another host can go on with it
STREAM_JOURNAL_UNREAD_BYTES: Final = 128 * KIB  # as it came, some 500 tokens: read when there is more, or at a loss
STREAM_RESUMPTIONS: Final = 2  # of one stream
STREAM_RESUME_PAUSE_S: Final = 0.5  # half to one and a half of it, until hosts that had no room are asked again
STREAM_RESUME_WAIT_S: Final = 10.0  # for another host, or this node's engine to be back: a start takes some seconds
STREAM_RESUME_ROOM_S: Final = 30.0  # for room at hosts that are there and full: a herd comes to them at once
ENGINE_STOP_POLITE_S: Final = 5.0  # SIGTERM, then SIGKILL
ENGINE_SELF_TEST_S: Final = 30.0  # of a build, at the daemon's start; a cold disk needs some of it
ENGINE_PROBE_INTERVAL_S: Final = 2.0
ENGINE_PROBE_TIMEOUT_S: Final = 5.0
ENGINE_STALL_S: Final = 15.0  # in-flight work, no progress, no CPU time: hung
ENGINE_BUSY_STALL_S: Final = 120.0  # in-flight work, CPU burning, no progress: hung
ENGINE_BACKOFF_FIRST_S: Final = 1.0
ENGINE_BACKOFF_MAX_S: Final = 60.0
ENGINE_FAILURE_WINDOW_S: Final = 600.0  # failures longer ago are forgotten, and the wait is the shortest again
ENGINE_LOAD_FAILURES_MAX: Final = 5  # in a row, then failed until somebody changes something; crashes never are
REMOTES: Final = 16  # servers that one node adopts
REMOTE_MODELS: Final = 96  # of all of them together, so that an announcement holds them
REMOTE_LIST_BYTES: Final = 4 * MIB  # a server's list; one of a thousand models has some hundred kilobytes
REMOTE_LIST_MODELS: Final = 4096  # entries that are read of it
REMOTE_PROBE_INTERVAL_S: Final = 10.0
REMOTE_PROBE_TIMEOUT_S: Final = 5.0
REMOTE_RETRY_FIRST_S: Final = 1.0  # after a probe that failed; doubles up to the interval
REMOTE_MISSES: Final = 2  # probes in a row without an answer in time, before a server that answered counts as gone
REMOTE_SLOTS: Final = 16  # requests sent to an adopted server before another way is preferred: it queues by itself
REMOTE_SILENCE_S: Final = 600.0  # without a byte of an answer, then the request is given up: what clients wait, too
REMOTE_ANSWER_HELD_BYTES: Final = 4 * MIB  # of an answer that is held to name the model as it was asked for
REMOTE_ERROR_CHARS: Final = 2000  # of what a server says of an error
REMOTE_RETRY_AFTER_S: Final = 2  # when a client should come back to a server that has too much to do
ENGINE_LOG_LINES: Final = 2000
ENGINE_LOG_LINE_BYTES: Final = 8 * KIB
DRAIN_S: Final = 30.0

# -- the local network and first addresses -----------------------------------------------------------
LAN_RECORDS: Final = 64  # other nodes that are remembered from the local network; more are not heard
LAN_RECORD_BYTES: Final = 512  # of the TXT values of one record; ours has about 100
LAN_ADDRESSES: Final = 8  # of one node; its announcement carries the others
LAN_NAME_BYTES: Final = 63  # of a mesh's name
LAN_ANSWER_TIMEOUT_S: Final = 3.0  # for the address of a node that was heard of
LAN_RESOLVERS: Final = 4  # such questions at the same time
LAN_RETRY_S: Final = 60.0  # until multicast is tried again where it did not work
LAN_CLOSE_TIMEOUT_S: Final = 3.0  # for saying goodbye
LAN_LOOK_S: Final = 3.0  # how long `--join lan` listens
OWN_ADDRESSES: Final = 8  # that a node announces; a token carries them too
NAME_LOOKUP_TIMEOUT_S: Final = 5.0  # of a host that was named by `--peer`
NAME_LOOKUP_INTERVAL_S: Final = 300.0
INTERFACES_INTERVAL_S: Final = 10.0  # how often the machine's own addresses are looked at
OBSERVED_ADDRESSES: Final = 4  # where peers saw this node; the newest
TOKEN_TTL_S: Final = 86_400.0  # of a token, unless somebody says otherwise
TOKEN_TTL_LEAST_S: Final = 60.0
TOKEN_TTL_MOST_S: Final = 31_536_000.0
TOKEN_USES_MOST: Final = 100_000
JOIN_TOKENS: Final = 16  # that a node may be started with
JOIN_FILE_BYTES: Final = 64 * KIB
INTERFACE_ADDRESSES: Final = 64  # of this machine that are looked at

# -- model files and downloads ---------------------------------------------------------------------
GGUF_STRING_BYTES: Final = 64 * KIB  # keys and tensor names
GGUF_VALUE_BYTES: Final = 1 * MIB  # a longer string value is skipped, not kept; chat templates are some kilobytes
GGUF_KEY_VALUES: Final = 65_536
GGUF_TENSORS: Final = 131_072  # the largest known models have some thousands
GGUF_ARRAY_ITEMS: Final = 4_194_304  # of all arrays together; the largest vocabularies with merges have 800,000
GGUF_ARRAY_KEPT_ITEMS: Final = 1_024  # a longer array is skipped, only its count kept; one item a layer is normal
GGUF_HEADER_BYTES: Final = 256 * MIB
GGUF_READ_MEMORY_BYTES: Final = 64 * MIB  # keys, names and kept values, counted with what Python adds to them
GGUF_READ_S: Final = 2.0  # processor time, so that a slow disk or a busy machine makes no file invalid
MODEL_FOLDER_DEPTH: Final = 3  # of folders: <dir>/<vendor>/<Name>/*.gguf
MODEL_FOLDER_ENTRIES: Final = 20_000  # names looked at in one scan; the rest is not seen, and said
MODELS_PER_NODE: Final = 256
MODEL_PROBLEMS: Final = 256  # unusable files that are told of; the rest is silent
HEALTH_INTERVAL_S: Final = 30.0  # how often a model is looked at
HEALTH_WINDOW_S: Final = 300.0  # of requests that its error rate and response time are made of
HEALTH_LEAST_REQUESTS: Final = 20  # in that window, below which there is no error rate
STATEMENT_ASKED_S: Final = 1.0  # between two statements that a node makes only because others asked
HEALTH_CHECK_TIMEOUT_S: Final = 8.0  # for a check that somebody asked for; ten are promised
REGISTRATIONS: Final = 1_024  # versions that a node keeps
REGISTER_TIMEOUT_S: Final = 600.0  # for a file to be hashed that somebody registers
REGISTRY_TEXT_CHARS: Final = 256  # of one note beside a version
REGISTRY_TAGS: Final = 32  # beside a version
MODEL_FOLDER_SCAN_S: Final = 2.0  # how often model folders are looked at
RESCAN_WAIT_S: Final = 5.0  # that `doctor` gives a node to list a file, after it asked it to look again
DISK_RESERVE_BYTES: Final = 2 * GIB  # left free by a download, or as much as it takes itself if that is less...
DISK_RESERVE_LEAST_BYTES: Final = 64 * MIB  # ...but at least this
DOWNLOAD_STALL_S: Final = 60.0
DOWNLOAD_RETRIES: Final = 3
HUB_ANSWER_TIMEOUT_S: Final = 20.0
DOWNLOAD_STOP_S: Final = 2.0  # SIGTERM, then SIGKILL
DOWNLOAD_ANSWER_BYTES: Final = 1 * MIB  # what the downloading child may say
RESOLVE_TIMEOUT_S: Final = 60.0
DIGEST_ENTRIES: Final = 4_096  # remembered SHA-256 of files

# -- the bulk plane: model files between nodes -------------------------------------------------------
BULK_CONNECTIONS: Final = 16  # served at once; a connection too many is closed before it says anything
BULK_CONNECTIONS_PER_PEER: Final = 4
BULK_HANDSHAKE_S: Final = 5.0  # for TLS and the proof after it together
BULK_DIAL_S: Final = 5.0  # for one address of a peer
BULK_FRAME_BYTES: Final = 4 * KIB  # of what is said between the bytes of files
TCP_PROBE_AFTER_S: Final = 5  # of silence, TCP asks whether the other machine is still there
TCP_PROBE_EVERY_S: Final = 2
TCP_PROBES: Final = 3  # without an answer, and the connection is lost
BULK_IDLE_S: Final = 60.0  # a connection on which nothing is asked for is closed
BULK_PIECE_BYTES: Final = 4 * MIB  # asked for, kept and given to another peer as a whole
BULK_PIECE_S: Final = 60.0  # a piece that takes longer is asked of another peer
BULK_PIECES_AHEAD: Final = 2  # asked of one peer before the first has come, so that a long way costs no pauses
BULK_PIECES_HELD: Final = 8  # in memory, of one copy: each peer fills one, one is hashed, the others wait for that
BULK_BLOCK_BYTES: Final = 1 * MIB  # read, sent and written at once
BULK_READ_BYTES: Final = 256 * KIB  # encrypted bytes taken from the network, or given to it, at once
BULK_SOURCES: Final = 4  # peers that one file comes from at the same time
BULK_TRIES: Final = 2  # connections to one peer for one file that may break
BULK_SYNC_BYTES: Final = 64 * MIB  # that have come, and the disk is asked to take them while more comes
BULK_MARK_S: Final = 1.0  # how often it is written down which pieces have arrived
BULK_STATE_BYTES: Final = 1 * MIB  # of that list; a file of a terabyte takes 64 KiB

# Tensor traffic of splits, on the bulk plane
BRIDGE_BUFFER_BYTES: Final = 256 * KIB + 32 * KIB  # held of each direction: all that is read at once, and two records
BRIDGE_CHUNK_BYTES: Final = 256 * KIB - 4  # passed on at once: with its length a whole number of TLS records
BRIDGE_FLUSH_S: Final = 5.0  # for the last bytes of a side that has ended
BRIDGE_SWITCH_S: Final = 0.0005  # a thread of the interpreter gives way after so long, while there is a bridge
RPC_TURN_S: Final = 5.0  # a host's connection waits so long for the end of the one before it
RPC_START_S: Final = 30.0  # for a worker's server to listen
RPC_STOP_S: Final = 1.0  # a worker's server may take so long to end by itself
RPC_START_TRIES: Final = 3  # ports that somebody else took in the meantime
RPC_PRIME_S: Final = 600.0  # for filling a worker's cache from its own file
TENSOR_FOLDERS: Final = 2  # model files of which a worker keeps tensors; those used last

# -- members and gossip ----------------------------------------------------------------------------
MEMBERS: Final = 1_024  # live ones; announcements of more are not taken
TOMBSTONES: Final = 4_096  # dead and left members that are remembered, the newest
TOMBSTONE_S: Final = 86_400.0  # so that an old rumour revives nobody
FULL_MESH_MEMBERS: Final = 32  # up to here everybody is connected to everybody
CONTACTS: Final = 2_048  # nodes whose addresses are known
ADDRESSES_PER_NODE: Final = 16
DIALS_AT_ONCE: Final = 16
DIAL_ANSWER_S: Final = 15.0  # a dial that the transport never answers is counted as failed
CONNECTION_TIE_S: Final = 10.0  # two connections this close together are one double dial, not a restart
REDIAL_FAST_S: Final = 60.0  # a lost member is dialled often for this long
REDIAL_STEADY_S: Final = 3_600.0  # ...and one of all lost ones often for this long
GOSSIP_BUCKETS: Final = 64  # of the summary that two nodes compare
GOSSIP_FANOUT: Final = (
    3  # members that news of others is passed on to, summaries are compared with, suspicions asked of
)
GOSSIP_BATCH_RECORDS: Final = 64  # in one message
GOSSIP_BATCH_BYTES: Final = 128 * KIB  # in one message; a control frame holds twice as much
GOSSIP_DIRECT_RECORDS: Final = 32  # a table this small is compared entry by entry on a first contact
GOSSIP_MESSAGES_PER_S: Final = 100.0  # taken from one peer; pings and their answers are not counted
GOSSIP_MESSAGES_BURST: Final = 400.0
STATEMENTS_PER_S: Final = 10.0  # of one node, whoever carries them
STATEMENTS_BURST: Final = 50.0
STATEMENT_JUMP: Final = 2**32  # an incarnation or version further ahead than this is no honest one
VERIFY_INTERVAL_S: Final = 5.0  # a rumour about one member is looked into at most this often
REFUTE_INTERVAL_S: Final = 1.0  # a rumour about this node is answered at most this often
HELPS_PENDING: Final = 256  # pings on behalf of others
INDIRECT_ALL: Final = 32  # members asked about one that this node has no connection to
LAN_RTT_S: Final = 0.010  # with all round trips below it, the mesh is treated as one site
LAN_RTT_LEAVE_S: Final = 0.015
LAG_UNIT_S: Final = 0.5  # each of these by which the own loop is late adds one times the patience
LAG_STRETCH: Final = 8.0
LAG_ACCUSES_S: Final = 1.0  # with more lag than this nobody is accused
LAG_REMEMBERED_S: Final = 5.0
ROSTER_FIRST_S: Final = 0.5  # after the first contact, so that a crash does not make a stranger of this node
ROSTER_INTERVAL_S: Final = 10.0  # between two writings of the roster
JOIN_WAIT_S: Final = 15.0  # how long a node that was told of a mesh calls itself joining
TWIN_OUTBIDS: Final = 3  # within a minute: somebody else runs with this node's key

# -- the mesh ----------------------------------------------------------------------------------------
CONTROL_FRAME_BYTES: Final = 256 * KIB  # of empty maps it costs 14 ms and 18 MB to read; 8 MiB cost 1.5 s and 582 MB
HANDSHAKE_BYTES: Final = 16 * KIB  # of everything that a peer says before it is admitted
HANDSHAKE_TIMEOUT_S: Final = 5.0
TUNNEL_FRAME_BYTES: Final = 64 * KIB
MSGPACK_DEPTH: Final = 16
MSGPACK_MAPS: Final = 8_192  # in one frame; a digest that fills it has 2,500
MSGPACK_VALUES: Final = 32_768  # the same, of values in lists and maps
MSGPACK_ARRAY_ITEMS: Final = 4_096
MSGPACK_MAP_ITEMS: Final = 256
MSGPACK_STRING_BYTES: Final = 4_096
MSGPACK_BINARY_BYTES: Final = 64 * KIB
ANNOUNCEMENT_BYTES: Final = 60 * KIB  # unsigned; with its seal it has to fit into one binary
ANNOUNCED_ADDRESSES: Final = 16
ANNOUNCED_GPUS: Final = 64
ANNOUNCED_CAPABILITIES: Final = 32  # of one model
ANNOUNCED_REQUESTS: Final = 64  # models that one node wants to be served
ANNOUNCED_ORDERS: Final = 64  # the newest ones
ANNOUNCED_NAMES: Final = 256  # aliases and versions
ANNOUNCED_TEXT_CHARS: Final = 256  # build names, architectures, model names and the like
NODE_NAME_CHARS: Final = 64
MODEL_ID_CHARS: Final = 255  # a file's stem
CERTIFICATE_BYTES: Final = 8 * KIB  # with the certificates of its issuers
CERTIFICATE_CHAIN: Final = (
    4  # certificates up to the root: an admin admitted by an admin admitted by the founder, and one
)
CERTIFICATE_LIFE_S: Final = 30 * 86_400.0  # bounds the harm of a node that never hears of a revocation
CERTIFICATE_RENEWAL_SHARE: Final = 2 / 3  # of its life, after which it is renewed
CERTIFICATE_LEEWAY_S: Final = 2 * 86_400.0  # two clocks, each a day wrong
DELEGATION_LIFE_S: Final = 365 * 86_400.0  # how long an admin may issue: a mesh outlives its founder's machine by this
TOKEN_CHARS: Final = 400
TOKEN_PASTE_CHARS: Final = 4_096  # with quotes, spaces and line breaks around it; more is no token
TOKEN_ADDRESSES: Final = 8
TOKEN_LEEWAY_S: Final = 300.0  # an expired token admits for this long: clocks differ
TOKENS: Final = 256  # that admins remember, the longest valid ones
TOKEN_USERS: Final = 1_024  # nodes that joined with one token
REVOCATIONS: Final = 4_096
REVOCATIONS_BATCH: Final = 24  # in one message, each with up to 8 KiB of issuers
FALLEN_MEMBERS: Final = 1_024  # remembered as admitted by somebody who was expelled
TRUST_ANSWER_INTERVAL_S: Final = 10.0  # on one connection, between two answers with all that is known
ADMISSION_FAILURES: Final = 10  # within a minute from one network, then silence
ADMISSION_FAILURE_WINDOW_S: Final = 60.0
ADMISSION_SILENCE_S: Final = 60.0
ADMISSION_NETWORKS: Final = 1_024  # that are watched
PEER_FEATURES: Final = 32
PEER_FEATURE_CHARS: Final = 64

# -- who serves what ---------------------------------------------------------------------------------
DEMAND_HALF_LIFE_S: Final = 300.0  # after this long without requests a model counts as half as much in demand
DEMAND_LEAST: Final = 0.1  # requests a minute; less is none
DEMAND_LOOK_S: Final = 60.0  # how often fading demand is told again
DEMAND_MODELS: Final = 64  # that a node tells its demand of, the most wanted ones
ORPHAN_S: Final = 3_600.0  # how long others take over what a dead member served
ORPHANS: Final = 1_024  # such models that are remembered
WAITING_MODELS: Final = 64  # models nobody serves that requests wait for at one node; more are refused
GAP_SETTLE_S: Final = 0.5  # a model is seen to have no host for this long before anybody reaches for it
CLAIM_WAIT_S: Final = 1.0  # a claim is announced this long before its engine starts, so that a better one wins...
CLAIM_WAIT_MOST_S: Final = 4.0  # ...longer in a large mesh, where news takes longer
RANK_STEP_S: Final = 5.0  # the second best node waits this long for the best one to act, the third twice as long
URGENT_STEP_S: Final = 2.0  # the same where requests wait
SECOND_HELPING_S: Final = (
    5.0  # a node with work leaves each further model that nobody asked for to others for this long
)
REPLICA_QUIET_S: Final = 10.0  # the choice of another replica has held for this long before anybody acts on it
ASSIGN_INTERVAL_S: Final = 1.0  # between two looks at who should serve what, at most, in a large mesh...
NUMBERS_INTERVAL_S: Final = 5.0  # ...or when only load, demand or free memory changed
DECLINE_S: Final = 60.0  # a model that did not fit or load here is left to others for this long
HOT_PER_SLOT: Final = 20.0  # requests a minute for each slot of all hosts together, above which a model is hot
COOL_PER_SLOT: Final = 5.0  # ...and, with a host less, below which it has cooled
HOT_S: Final = 30.0  # it has been hot for this long before a host is added
COOL_S: Final = 600.0  # it has been cool for this long before an added host is taken away

# -- orders between nodes ----------------------------------------------------------------------------
ORDER_VERSION_MAX: Final = 2**53  # a clock that counts orders never comes near; what claims more is not counted
ORDER_REACH_S: Final = 15.0  # for a connection to a node that is to do something
ORDER_ANSWER_S: Final = 600.0  # for its answer: draining takes as long as that node lets it
ORDER_LOAD_S: Final = 3_600.0  # the same where the model may have to be downloaded
ORDER_WANTED_INTERVAL_S: Final = 10.0  # how often an order to load reminds the mesh that somebody waits
ORDERS_OF_PEERS: Final = 256  # under way or answered lately, by which a repeated one is known
ORDER_MESSAGE_CHARS: Final = 1_000  # of the sentence that tells how one ended

# -- requests between nodes --------------------------------------------------------------------------
UNREACHED_AGAIN_S: Final = 2.0  # after which a host that no tunnel could be opened to is tried once more
HOST_ATTEMPTS: Final = 3  # hosts that one request is sent to before its first byte, never one of them twice
RETRIES_SHARE: Final = (
    0.2  # of the requests in flight: as many retries may be under way, so that no herd feeds itself...
)
RETRIES_LEAST: Final = 3  # ...and so many in any case
TUNNEL_REQUEST_S: Final = 3_600.0  # for one forwarded request, to its last byte: no engine computes for nobody
FAR_TUNNELS_TOTAL: Final = 512  # open at a far end, of all peers together
FAR_TUNNELS_PER_PEER: Final = 64
TUNNEL_SHARE_OF_ROOM: Final = 4  # a peer may have this many times as many requests at a model as there is room left
FIRST_BYTE_S: Final = 15.0  # an engine elsewhere may stand still before who waits for its first byte leaves it, once...
FIRST_BYTE_TIMES: Final = 3  # ...where its first bytes were seen: so many times what this one should take...
FIRST_BYTE_LEAST_S: Final = 5.0  # ...but at least so long, since a busy machine pauses, too...
FIRST_BYTE_MOST_S: Final = 60.0  # ...and never longer than this
QUEUE_WAIT_S: Final = 30.0  # for a slot, as far as can be told: a peer's request that would wait longer asks elsewhere
QUEUE_SEEN_S: Final = 15.0  # for which an engine was seen with all slots taken before its queue's pace is known
TUNNEL_OPEN_TIMEOUT_S: Final = 6.0  # a dial takes at most 5 s
EJECTION_FAILURES: Final = 3  # tunnels in a row that failed before a node is left out
EJECTION_FIRST_S: Final = 5.0  # doubles each time
EJECTION_MAX_S: Final = 300.0
EJECTION_SHARE_MOST: Final = 0.5  # of the nodes that a request could go to: what fails for all is no fault of one
EJECTION_TRIAL_S: Final = 10.0  # one request tries a node that was out; others keep away for this long at most

# -- routing -------------------------------------------------------------------------------------------
PREFIX_BYTES: Final = 1 * MIB  # of a prompt, from its beginning, that is remembered
PREFIX_BLOCKS: Final = 131_072  # of all engines together, some 250 bytes of memory each
PREFIX_ENGINE_BYTES: Final = 16 * MIB  # of prompts that an engine is thought to keep, before its answers teach better
PREFIX_ENGINE_LEAST_BYTES: Final = 64 * KIB  # below which that estimate never sinks
ROUTED_ENGINES: Final = 16_384  # whose loads and speeds are remembered
ROUTING_HALF_LIFE_S: Final = 60.0  # of what is remembered of loads, speeds and waits
BALANCE_FACTOR: Final = 1.05  # of the fair share of recent requests, beyond which a host gets no new conversation...
BALANCE_SLACK: Final = 2.0  # ...once it is this many requests beyond it
ANSWER_TAIL_PIECES: Final = 4  # of a stream, of which the last ones say what it took
LATENCY_EXPLORATION: Final = 0.05  # share of requests by which `latency_based` looks whether others became quicker
ROUND_ROBIN_SETS: Final = 1_024  # sets of candidates whose turn is remembered
AFFINITY_SESSIONS: Final = 16_384  # the ones used last
AFFINITY_TIMEOUT_MOST_S: Final = 86_400.0
ROUTING_ALARM_INTERVAL_S: Final = 60.0  # between two warnings that a decision took long
RTT_UNMEASURED_S: Final = 0.05  # what a node that nobody measured is taken for
MEMORY_PRESSURE_SHARE: Final = 0.85  # of a machine's memory, beyond which that it is taken counts as load
DECISIONS_KEPT: Final = 1_000  # with their candidates, for `GET /api/explain`
ROUTING_NAMES_COUNTED: Final = 1_024  # models and hosts whose picks are counted; the rest is counted together
ROUTING_RETRIES_MOST: Final = 10
ROUTING_RETRY_DELAY_MOST_S: Final = 60.0
ROUTING_WEIGHTS: Final = 256
ROUTING_WEIGHT_MOST: Final = 1e6
ROUTING_SHADOWS: Final = 64
SHADOW_REQUESTS: Final = 8  # copies under way; what comes beyond them is not copied
SHADOW_BODY_BYTES: Final = MIB  # of a request that is copied
SHADOW_LOAD_MOST: Final = 0.5  # of an engine that takes copies
ROLLOUT_STEPS: Final = 32
ROLLOUT_REQUESTS: Final = 20  # of a new model, before it is judged
ROLLOUT_MORE_ERRORS: Final = 0.05  # share of its requests that may fail beyond the share of the old model's
ROLLOUT_SLOWER: Final = 1.5  # times the old model's time to the first byte
ROUTING_BODY_BYTES: Final = 64 * KIB  # of a change of it: the journal remembers what was asked
DECISIONS_SHOWN: Final = 100  # at a time
ATTEMPTS_SHOWN: Final = 8  # hosts of one request that are remembered for explanations
ROUTING_NAMES_BYTES: Final = 8 * KIB  # of all names in a routing configuration: it travels in an announcement

# -- daemon ------------------------------------------------------------------------------------------
INBOX_EVENTS: Final = 10_000
JOURNAL_EVENTS: Final = 4_096
STATE_FILE_BYTES: Final = 4 * MIB
CONFIG_FILE_BYTES: Final = 1 * MIB
LOG_LINE_BYTES: Final = 8 * KIB
MANAGEMENT_BODY_BYTES: Final = 1 * MIB
GENERATE_PROMPTS: Final = 256  # in one batch
GENERATE_AT_ONCE: Final = 16  # of them side by side: more would only wait in the engine's queue
GENERATE_TIMEOUT_S: Final = 3_600.0  # for a plain prompt, its waiting included
MANAGEMENT_STREAMS: Final = 64  # people and programs following status, logs or a pull at the same time
STATUS_INTERVAL_S: Final = 0.25  # between two status documents of one stream
PULL_LINE_INTERVAL_S: Final = 0.25  # between two lines of progress
LOG_FOLLOW_INTERVAL_S: Final = 0.5
NODE_ANSWER_TIMEOUT_S: Final = 10.0  # how long a command waits for the local node to say anything

# -- connections between nodes -----------------------------------------------------------------------
QUIC_STREAM_WINDOW_BYTES: Final = 256 * KIB  # 1 MiB as in protocol.md would let 32 stalled streams stop a connection
QUIC_CONNECTION_WINDOW_BYTES: Final = 32 * MIB  # 128 streams may stall before the next one notices
QUIC_UNADMITTED_WINDOW_BYTES: Final = 2 * HANDSHAKE_BYTES  # what a stranger may send in all, on its one stream
QUIC_STREAMS: Final = 1024  # that a peer may have open at a time
QUIC_IDLE_TIMEOUT_S: Final = 20.0
QUIC_KEEP_ALIVE_S: Final = 5.0  # how often connections are looked at: silent ones get a PING
QUIC_DATAGRAM_BYTES: Final = 1200  # what every path carries
PATH_SIZE_TRIES: Final = 3  # of one larger size, before the path counts as too narrow for it
PATH_SIZE_INTERVAL_S: Final = 1.0  # between two of them
PATH_SIZE_TIMEOUTS: Final = 3  # probe timeouts in a row, after which the path is not trusted with large datagrams
QUIC_PACING_QUANTUM_S: Final = 0.002  # a burst may be as long as two ticks of the loop's timers: 40 -> 64 MB/s
QUIC_UNSENT_HIGH_BYTES: Final = 64 * KIB  # of one stream, above which its writer is told to wait...
QUIC_UNSENT_LOW_BYTES: Final = 16 * KIB  # ...until so few are left
QUIC_CLOSE_LINGER_S: Final = 2.0  # a close is repeated to a peer that goes on, for this long
UDP_BUFFER_BYTES: Final = 4 * MIB  # asked of the kernel, in each direction
UDP_BATCH_DATAGRAMS: Final = 64  # read in one turn of the loop, before anything else gets its turn
UDP_DATAGRAM_BYTES: Final = 10 * KIB  # longer ones are cut, and then dropped by whoever deciphers them
UDP_BACKLOG_DATAGRAMS: Final = 4096  # that the kernel did not take; more are dropped, as any network would
UNADMITTED_CONNECTIONS: Final = 64  # accepted, and not yet admitted to the mesh
UNADMITTED_CONNECTIONS_PER_ADDRESS: Final = 4  # loopback is exempt: several nodes of one machine start at once
RETRY_ABOVE_CONNECTIONS: Final = 32  # unadmitted ones: above it a dialler first shows that its address is its own
STRANGERS_PER_S: Final = 50.0  # first datagrams that are looked into; beyond, the same: looking costs a millisecond
STRANGERS_BURST: Final = 200.0
RETRIES_PER_S: Final = 500.0  # answers to those; beyond, a flood is only dropped
RETRIES_BURST: Final = 1000.0
CONTROL_FRAMES_PER_S: Final = 200.0  # read from one peer; beyond, its control stream waits, and nobody else's
CONTROL_FRAMES_BURST: Final = 1000.0
CONTROL_BYTES_PER_S: Final = 512 * KIB  # some hundred records, each with its signatures to check
CONTROL_BYTES_BURST: Final = 4 * MIB
CONTROL_UNSENT_BYTES: Final = 1 * MIB  # beyond, what is said to a peer that reads nothing is dropped
CONTROL_FRAME_TIMEOUT_S: Final = 10.0  # for the rest of a frame that has begun
UNREADABLE_MESSAGES: Final = 20  # within a minute, then the peer is sent away
FORBIDDEN_STREAMS: Final = 100  # within a minute, the same
ABUSE_WINDOW_S: Final = 60.0
ABUSE_BAN_S: Final = 60.0  # how long it stays away
OPENED_RECORDS: Final = 2048  # whose signatures need no second check...
OPENED_RECORDS_S: Final = 60.0  # ...for this long
TUNNELS_PER_PEER: Final = 64  # each open stream costs every packet of its connection
TUNNEL_HEAD_TIMEOUT_S: Final = 5.0
TUNNEL_HEARTBEAT_S: Final = 2.0  # without a byte to send, the far end says that it lives
LINK_DOUBT_S: Final = 1.0  # for a sign of life from a peer that its machine says is gone; then its tunnels are over
TUNNEL_SILENCE_S: Final = 10.0  # then the far end is lost
CONNECTION_DRAIN_S: Final = 30.0  # a connection that was replaced ends with its last tunnel, or after this
ROUND_TRIP_CHANGE: Final = 0.1  # share by which a round trip has to change to be news
PATH_FAILURE_INTERVAL_S: Final = 1.0  # each datagram to a dead process is refused; once is enough to know
PATH_FAILURES: Final = 1_024  # peers of which that is remembered
DIAL_TIMEOUT_S: Final = 5.0  # until authenticated, whatever happens
DIAL_ADDRESSES: Final = 8  # of one peer, side by side
DIAL_REFUSED_GRACE_S: Final = 0.5  # a refusal (ICMP) can be forged: an answer that comes this soon is still taken

RPC_SELF_TEST_S: Final = 60.0  # of a build that shares models: two programs start, and a tiny model answers

# -- quotas --------------------------------------------------------------------------------------------
QUOTA_MOST: Final = 2**53  # of any limit; what every JSON reader can hold
QUOTA_MODELS: Final = 64  # models that somebody chose limits for, mesh-wide; each is told to every node
QUOTA_BODY_BYTES: Final = 16 * KIB  # of a change of them
QUOTA_BYTES_PER_TOKEN: Final = 4  # what a prompt is taken for until its engine has counted it
QUOTA_ANSWER_TOKENS: Final = 4096  # kept free for an answer without a limit, where the context is not known
QUOTA_QUEUE_S: Final = 30.0  # that a request above a limit may wait, where it may at all
QUOTA_QUEUE_REQUESTS: Final = 256  # that wait so at one host
QUOTA_LOOK_S: Final = 0.25  # how often those look again
QUOTA_THROTTLE_MOST_S: Final = 2.0  # delay of a request above the third soft level
QUOTA_THROTTLE_HARD_MOST_S: Final = 10.0  # above the fourth
QUOTA_THROTTLE_BASE_S: Final = 0.1  # for each percent above the level
QUOTA_LEASE_S: Final = 5.0  # at least so long between two leases of one window: as often as hosts tell what they used
QUOTA_KEEP_S: Final = 30.0  # how often what was used is written down
QUOTA_EMERGENCY_SHARE: Final = 0.97  # of a host's memory in use: then only urgent requests come in
QUOTA_EMERGENCY_QUEUE_PER_SLOT: Final = 10  # requests at a host for each slot: the same

# -- traces --------------------------------------------------------------------------------------------
TRACE_QUEUE_SPANS: Final = 4096  # that wait for their collector; beyond, the newest are dropped and counted
TRACE_BATCH_SPANS: Final = 512  # in one request to it
TRACE_INTERVAL_S: Final = 2.0  # at most so long they wait where fewer come
TRACE_EXPORT_TIMEOUT_S: Final = 10.0  # for one request to it
TRACE_RETRY_MOST_S: Final = 60.0  # between two attempts, while it does not answer
TRACE_LAST_WORD_S: Final = 3.0  # for what is left when the node ends
PROGRAM_EXIT_S: Final = 2.0  # the end of a program is held up no longer by a node in it that was not closed


def all_limits() -> dict[str, int | float]:
    """Return every limit by name, in the order of this file."""
    return {
        name: value
        for name, value in (globals() | vars(cache_limits) | vars(line_limits) | vars(split_limits)).items()
        if name.isupper() and name not in {"KIB", "MIB", "GIB"} and isinstance(value, int | float)
    }


def disk_reserve_bytes(size_bytes: int) -> int:
    """Return how much of the disk a download of this size has to leave free."""
    return max(DISK_RESERVE_LEAST_BYTES, min(DISK_RESERVE_BYTES, size_bytes))
