"""Entries of the cache, damaged in every part."""

import pytest

from src.utils.cache import cache_entry, is_cached


@pytest.fixture
def entry(tmp_path):
    path = tmp_path / "cache" / "entry.bin"
    with cache_entry(path) as temporary:
        temporary.write_bytes(b"content")
    return path


def test_an_entry_is_known_by_its_checksum(entry):
    assert is_cached(entry) and not is_cached(entry.with_name("other.bin"))


@pytest.mark.parametrize("name", ["entry.bin", "entry.bin.sha256"])
def test_an_entry_with_a_flipped_bit_anywhere_is_made_again(entry, name, caplog):
    damaged = entry.with_name(name)
    content = bytearray(damaged.read_bytes())
    content[3] ^= 0x80  # no text any more
    damaged.write_bytes(content)
    assert not is_cached(entry) and str(entry) in caplog.text
    with cache_entry(entry) as temporary:
        temporary.write_bytes(b"content")
    assert is_cached(entry)
