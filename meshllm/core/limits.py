"""Every written limit of the daemon, in one place; `mesh-llm doctor` prints them.

A queue, buffer, retry or wait that has no line here is a bug. Sizes are bytes, durations seconds.
The reasons stand beside the values; `reference` rows are those of the failure model in docs/.
"""

from typing import Final

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
MODEL_NAME_BYTES: Final = 512
PROMPT_BYTES_PER_TOKEN: Final = 16  # text above context x this cannot fit: real text has 2 to 6 bytes a token
REMOTE_ERROR_TEXT_BYTES: Final = 200
SSE_LINE_BYTES: Final = 1 * MIB

# -- waiting for a model ---------------------------------------------------------------------------
LOAD_WAIT_S: Final = 300.0  # how long a request waits for its model before 503 model_loading
LOAD_TIMEOUT_S: Final = 300.0  # how long a load may go without progress before it is killed
KEEP_ALIVE_COMMENT_S: Final = 10.0  # SSE comments while a stream waits
WAITING_REQUESTS: Final = 256  # requests held for loading models; more get 503 at once
HOST_QUEUE_PER_SLOT: Final = 2  # requests in flight at an engine: slots x (1 + this)

# -- engines ---------------------------------------------------------------------------------------
ENGINE_CONNECT_TIMEOUT_S: Final = 5.0
ENGINE_IDLE_CONNECTIONS: Final = 64  # kept open to one engine; at most one for each slot, they cost it threads
ENGINE_QUEUE_REQUESTS: Final = 64  # may wait at an engine however few its slots: 50 clients at once is one office
ENGINE_ATTEMPTS: Final = 2  # of one request, before its first byte: one that ends engines must not end many
ENGINE_HEAD_BYTES: Final = 32 * KIB  # head of an engine's answer
ENGINE_HEADS_REMEMBERED: Final = 1024
ENGINE_LOST_WAIT_S: Final = 10.0  # for the node to notice that an engine is gone, before 502
ENGINE_INTERIM_ANSWERS: Final = 8  # 1xx before the answer
ENGINE_ANSWER_HELD_BYTES: Final = 256 * KIB  # answers up to this are sent whole or not at all, so they can be retried
ENGINE_CHUNK_HELD_BYTES: Final = 64 * KIB  # a chunk or an event up to this is sent whole, a larger one in parts
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
ENGINE_LOG_LINES: Final = 2000
ENGINE_LOG_LINE_BYTES: Final = 8 * KIB
DRAIN_S: Final = 30.0

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
MODEL_FOLDER_SCAN_S: Final = 2.0  # how often model folders are looked at
DISK_RESERVE_BYTES: Final = 2 * GIB  # left free by a download, or as much as it takes itself if that is less...
DISK_RESERVE_LEAST_BYTES: Final = 64 * MIB  # ...but at least this
DOWNLOAD_STALL_S: Final = 60.0
DOWNLOAD_RETRIES: Final = 3
HUB_ANSWER_TIMEOUT_S: Final = 20.0
DOWNLOAD_STOP_S: Final = 2.0  # SIGTERM, then SIGKILL
DOWNLOAD_ANSWER_BYTES: Final = 1 * MIB  # what the downloading child may say
RESOLVE_TIMEOUT_S: Final = 60.0
DIGEST_ENTRIES: Final = 4_096  # remembered SHA-256 of files

# -- daemon ------------------------------------------------------------------------------------------
INBOX_EVENTS: Final = 10_000
JOURNAL_EVENTS: Final = 4_096
STATE_FILE_BYTES: Final = 4 * MIB
CONFIG_FILE_BYTES: Final = 1 * MIB
LOG_LINE_BYTES: Final = 8 * KIB
MANAGEMENT_BODY_BYTES: Final = 1 * MIB
MANAGEMENT_STREAMS: Final = 64  # people and programs following status, logs or a pull at the same time
STATUS_INTERVAL_S: Final = 0.25  # between two status documents of one stream
PULL_LINE_INTERVAL_S: Final = 0.25  # between two lines of progress
LOG_FOLLOW_INTERVAL_S: Final = 0.5
NODE_ANSWER_TIMEOUT_S: Final = 10.0  # how long a command waits for the local node to say anything
MEMORY_SHED_SHARE: Final = 0.9  # of the container's limit: shed new work above it


def all_limits() -> dict[str, int | float]:
    """Return every limit by name, in the order of this file."""
    return {
        name: value
        for name, value in globals().items()
        if name.isupper() and name not in {"KIB", "MIB", "GIB"} and isinstance(value, int | float)
    }


def disk_reserve_bytes(size_bytes: int) -> int:
    """Return how much of the disk a download of this size has to leave free."""
    return max(DISK_RESERVE_LEAST_BYTES, min(DISK_RESERVE_BYTES, size_bytes))
