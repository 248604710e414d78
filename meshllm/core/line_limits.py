"""The written limits about lines, on which tunnels go to near machines: a part of `limits`, which shows them with all.

Owns these numbers. Decides nothing. Doesn't know who keeps to them.
"""

from typing import Final

# -- lines: tunnels over TCP ---------------------------------------------------------------------------
LINES_PER_PEER: Final = 16  # that are dialled; tunnels beyond them take a stream of the connection
LINES_TAKEN_PER_PEER: Final = 64  # that one peer may have open here
LINES_TAKEN: Final = 256  # that all peers together may have open here
LINE_RECORD_BYTES: Final = 65_536  # of what is sent as one piece
LINE_READ_BYTES: Final = 65_536  # decrypted at once
LINE_UNSENT_HIGH_BYTES: Final = 65_536  # of one line, above which its writer is told to wait
LINE_REST_S: Final = 2.0  # for the other end's last word, after ours; then the line is of no more use
LINE_IDLE_S: Final = 60.0  # without a tunnel, before whoever dialled hangs up; the other end waits twice as long
LINE_AGAIN_S: Final = 60.0  # after a dial that failed
LINE_ROUND_TRIP_S: Final = 0.02  # to a peer at most: ways through the world change, and only QUIC survives that
LINE_DIALS: Final = 2  # at the same time
