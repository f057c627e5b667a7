"""Notes in a job's folder."""

from src.store.state import noted_failure


def test_a_damaged_note_of_a_failure_is_a_failure(tmp_path):
    (tmp_path / "error.txt").write_bytes(b"no s\xf5ace\n\nTraceback")
    assert noted_failure(tmp_path) == "no s\N{REPLACEMENT CHARACTER}ace"
