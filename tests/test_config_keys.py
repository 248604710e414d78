"""The keys of the tables: each has a meaning and a reader, and no spelling stands for two."""

from meshllm.config_keys import MODEL_KEYS, REMOTE_KEYS


def test_no_spelling_is_of_two_keys() -> None:
    """Whoever writes one has to know what it says."""
    for keys in (MODEL_KEYS, REMOTE_KEYS):
        spellings = [spelling for own, key in keys.items() for spelling in (own, *key.also)]
        assert len(spellings) == len(set(spellings))
        assert not set(spellings) & {key.table for key in keys.values()}


def test_every_key_has_a_meaning() -> None:
    """The documentation is made of them."""
    assert all(key.meaning.endswith((".", "]")) for keys in (MODEL_KEYS, REMOTE_KEYS) for key in keys.values())
