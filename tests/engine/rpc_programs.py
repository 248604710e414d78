"""Programs that look like a llama-server and a ggml-rpc-server: what a self-test sees of them, and no more."""

import sys
from pathlib import Path

SERVER = """
import argparse, http.server, json, socketserver, sys, socket
if "--version" in sys.argv:
    sys.exit(print("version: 0.5.0 (build 7, commit abc123)"))
if "--list-devices" in sys.argv:
    sys.exit(print("Available devices:\\n  CUDA0: H100 (81089 MiB, 80553 MiB free)"))
{trouble}
parser = argparse.ArgumentParser()
parser.add_argument("--host")
parser.add_argument("--rpc")
known, _ = parser.parse_known_args()
socket.create_connection(("127.0.0.1", int(known.rpc.rpartition(":")[2]))).close()
class Answer(http.server.BaseHTTPRequestHandler):
    def say(self, told):
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.say({{"status": "ok"}})
    def do_POST(self):
        self.say({{"tokens_predicted": {tokens}}})
    def log_message(self, *_):
        pass
class Server(socketserver.UnixStreamServer):
    def get_request(self):
        return super().get_request()[0], ("", 0)
Server(known.host, Answer).serve_forever()
"""
WORKER = """
import socket, sys
{trouble}
port = int(sys.argv[sys.argv.index("-p") + 1])
with socket.create_server(("127.0.0.1", port)) as door:
    while True:
        client, _ = door.accept()
        if client.recv(64):
            client.sendall(bytes(8) + bytes([7, 0, 1]) + bytes(25))
        client.close()
"""


def write_pair(folder: Path, *, tokens: int = 4, server_trouble: str = "", worker_trouble: str = "") -> Path:
    """Write both programs into a folder and return it. A trouble is Python that runs at the start of one."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "llama-server": SERVER.format(tokens=tokens, trouble=server_trouble),
        "ggml-rpc-server": WORKER.format(trouble=worker_trouble),
    }
    for name, text in texts.items():
        path = folder / name
        path.write_text(f"#!{sys.executable}\n{text}", encoding="utf-8")
        path.chmod(0o755)
    return folder
