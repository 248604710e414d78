"""The tokens that were given out: who may still join with which.

Owns their records at an admin. Decides whether a proof is good, and how the knowledge of two admins becomes one.
Doesn't know who asks, nor how a record travels.

Merging is the same in any order and as often as it happens: uses are united, a revocation is never undone.
"""

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import replace

from meshllm.core.credentials import TokenProof, TokenRecord
from meshllm.core.ids import NodeId, TokenId
from meshllm.core.limits import TOKEN_LEEWAY_S, TOKEN_USERS, TOKENS
from meshllm.core.rights import Rights


class TokenBook:
    """Records of tokens, at most as many as the limit says, the longest valid ones."""

    def __init__(self, records: Iterable[TokenRecord] = ()) -> None:
        """Know some tokens."""
        self._records: dict[TokenId, TokenRecord] = {}
        for record in records:
            self._put(record)

    @property
    def records(self) -> tuple[TokenRecord, ...]:
        """Return all records, the longest valid last."""
        return tuple(sorted(self._records.values(), key=lambda record: (record.expires_unix_s, record.token_id)))

    def get(self, token: TokenId) -> TokenRecord | None:
        """Return what is known of a token."""
        return self._records.get(token)

    def check(self, proof: TokenProof, node: NodeId, now_unix_s: float) -> TokenRecord | str:
        """Return the token that a node proved and may use, or one exact word for what is wrong.

        Expiry counts from the admin's clock, with five minutes of leeway.
        """
        record = self._records.get(proof.token_id)
        if record is None:
            return "token_unknown"
        right = hmac.digest(record.secret_hash, proof.transcript, hashlib.sha256)
        if not hmac.compare_digest(right, proof.proof):
            return "token_wrong_secret"
        if record.is_revoked:
            return "token_revoked"
        if now_unix_s > record.expires_unix_s + TOKEN_LEEWAY_S:
            return "token_expired"
        if node not in record.used_by and (record.uses_left == 0 or len(record.used_by) >= TOKEN_USERS):
            return "token_used_up"
        return record

    def use(self, token: TokenId, node: NodeId) -> TokenRecord | None:
        """Note that a node joined with a token. Return the changed record, or None when it had before."""
        record = self._records[token]
        if node in record.used_by:
            return None
        return self._put(replace(record, used_by=tuple(sorted((*record.used_by, node)))))

    def revoke(self, token: TokenId) -> TokenRecord | None:
        """Let nobody join with a token. Return the changed record, or None when there is nothing to change."""
        record = self._records.get(token)
        if record is None or record.is_revoked:
            return None
        return self._put(replace(record, is_revoked=True))

    def revoke_all(self) -> tuple[TokenRecord, ...]:
        """Let nobody join with any token. Return the changed records."""
        revoked = (self.revoke(record.token_id) for record in self.records)
        return tuple(record for record in revoked if record is not None)

    def revoke_used_by(self, node: NodeId) -> tuple[TokenRecord, ...]:
        """Let nobody join with the tokens that a node has: it could come back under another key."""
        revoked = (self.revoke(record.token_id) for record in self.records if node in record.used_by)
        return tuple(record for record in revoked if record is not None)

    def merge(self, record: TokenRecord, giver: Rights) -> TokenRecord | None:
        """Learn of a token from another admin, who can give no right that it lacks.

        Return the record as it is known here if that changed, or None.
        """
        known = self._records.get(record.token_id)
        if known is None:
            return self._put(replace(record, rights=record.rights & giver))
        used_by = tuple(sorted({*known.used_by, *record.used_by})[:TOKEN_USERS])
        merged = replace(known, used_by=used_by, is_revoked=known.is_revoked or record.is_revoked)
        return self._put(merged) if merged != known else None

    def digest(self) -> bytes:
        """Return a hash that two admins share exactly when they know the same."""
        state = hashlib.sha256()
        for record in self.records:
            state.update(f"{record.token_id} {record.is_revoked} {' '.join(record.used_by)}\n".encode())
        return state.digest()

    def _put(self, record: TokenRecord) -> TokenRecord | None:
        """Keep a record. Return it, or None when there is no room for one that ends so early."""
        self._records[record.token_id] = record
        if len(self._records) > TOKENS:
            del self._records[self.records[0].token_id]
        return self._records.get(record.token_id)
