"""Errors as whole HTTP answers.

Owns the bytes of an answer that no engine had a part in: status line, fields and document together. Decides which
fields an error brings with it. Doesn't know what went wrong nor who asked.
"""

from meshllm.proxy import openai
from meshllm.proxy.intake import Intake
from meshllm.proxy.openai import Problem


def problem_answer(problem: Problem, intake: Intake | None, lines: bytes) -> bytes:
    """Return a whole error answer; `lines` are further fields, each with CR LF."""
    document = openai.error_document(problem, anthropic=intake is not None and intake.is_anthropic)
    extra = b"Retry-After: %d\r\n" % problem.retry_after_s if problem.retry_after_s is not None else b""
    if problem.allow:
        extra += b"Allow: %b\r\n" % problem.allow.encode()
    if problem.status == 401:
        extra += b"WWW-Authenticate: Bearer\r\n"
    return b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b%b\r\n%b" % (
        problem.status, openai.reason_phrase(problem.status).encode(), len(document), extra, lines,
        b"" if intake is not None and intake.is_head else document,
    )  # fmt: skip
