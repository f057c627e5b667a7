"""The manifest of a stored set: what it must say, how it is written last and read first."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from src.attacks.projection import NORMS
from src.utils.files import reason, write_text

MANIFEST = "manifest.json"
FORMAT = "transferability-set"
VERSION = 1
DATASET = ("name", "digest", "num_classes", "class_names")
_CIRCUMSTANCES = ("digest", "created", "software")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 255


def _are_whole(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_whole, value))


def _is_dataset(value: Any) -> bool:
    if not isinstance(value, dict) or not set(DATASET) <= value.keys():
        return False
    names, number = value["class_names"], value["num_classes"]
    return (
        isinstance(value["name"], str)
        and isinstance(value["digest"], str | None)
        and (number is None or _is_whole(number))
        and (names is None or (_are_names(names) and len(names) == number))
    )


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_images(value: Any) -> bool:
    if not isinstance(value, dict) or not {"index", "label", "target_label"} <= value.keys():
        return False
    columns = [value["index"], value["label"], value["target_label"]]
    columns = columns[:2] if columns[2] is None else columns
    return all(_are_whole(column) and len(column) == len(columns[0]) for column in columns)


def _is_file(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("sha256"), str):
        return False
    named = value.get("file") == content_name(value["sha256"])
    return named and _SHA256.fullmatch(value["sha256"]) is not None


def _are_budgets(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(_is_file(entry) and _is_number(entry.get("eps_255")) for entry in value)
    )


Rules = tuple[tuple[str, Callable[[Any], bool], str], ...]
FACTS: Rules = (
    ("source", lambda value: isinstance(value, str), "a name"),
    ("ensemble", lambda value: isinstance(value, str), "what an ensemble averages"),
    ("weights", lambda value: isinstance(value, dict), "digests by the sources' names"),
    ("attack", lambda value: isinstance(value, dict | str), "its settings or its name"),
    ("norm", lambda value: value in NORMS, " or ".join(NORMS)),
    ("seed", lambda value: value is None or _is_whole(value), "a whole number or null"),
    (
        "dataset",
        _is_dataset,
        "name, digest, num_classes and as many class_names (null where unknown)",
    ),
    ("images", _is_images, "lists index, label and target_label (or null) of one length"),
    (
        "shape",
        lambda value: _are_whole(value) and len(value) == 3 and value[0] == 3 and min(value) > 0,
        "[3, height, width]",
    ),
)
FILES: Rules = (
    ("clean", _is_file, "a sha256 and a file named by its first 16 digits"),
    ("budgets", _are_budgets, "a list of eps_255 in 0..255, each with sha256 and file"),
)


def check_rules(manifest: Mapping[str, Any], rules: Rules, where: str) -> None:
    """Refuse a manifest, or what is to become one, without a key or with a wrong value.

    Raises:
        ValueError: A key is missing or wrong; it says what is expected.
    """
    missing = [key for key, _, _ in rules if key not in manifest]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}.")
    for key, fits, expected in rules:
        if not fits(manifest[key]):
            shown = json.dumps(manifest[key], default=str)
            shown = shown if len(shown) < 60 else f"{shown[:60]}..."
            raise ValueError(f"{where}: {key} must be {expected}, not {shown}.")


def digest_of(facts: Mapping[str, Any]) -> str:
    """Hash all that a manifest says of the set itself: 16 hexadecimal digits of a SHA-256.

    Left out are the time and software of its writing.
    """
    kept = {key: value for key, value in facts.items() if key not in _CIRCUMSTANCES}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def content_name(sha256: str) -> str:
    """Name an array file by its content."""
    return f"{sha256[:16]}.npy"


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> Path:
    """Write the manifest, one line a key; readers see all of it or none."""
    lines = [f"  {json.dumps(key)}: {json.dumps(manifest[key])}" for key in manifest]
    path = folder / MANIFEST
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")
    return path


def load_manifest(folder: Path) -> dict[str, Any]:
    """Read and check the manifest of a finished set.

    Raises:
        ValueError: It is missing, no JSON, of another format or version, lacks a key, has a wrong
            value, or was edited since it was written.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(
            f"{path} does not exist: the folder holds no finished set of adversarial images."
        ) from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {reason(error)}.") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a JSON file: {error}.") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(f"{path} must be a manifest of the format {FORMAT!r}.")
    if manifest.get("version") != VERSION:
        raise ValueError(
            f"{path} has the version {manifest.get('version')!r}; this code reads {VERSION}."
        )
    check_rules(manifest, FACTS + FILES, str(path))
    if manifest.get("digest") != digest_of(manifest):
        raise ValueError(
            f"{path} was edited: its content does not have the digest {manifest.get('digest')!r}."
        )
    return manifest
