"""Foreign strings that become names, paths and keys: what is not allowed is refused before it is one."""

from __future__ import annotations

import re
from pathlib import Path, PureWindowsPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import InvalidVersion, Version

from neuronmap.errors import InputError
from neuronmap.zoo.digests import Digest, SafePath
from neuronmap.zoo.names import (
    RESERVED,
    Reference,
    check_alias,
    check_label,
    check_name,
    check_namespace,
    check_tag,
)
from neuronmap.zoo.versions import is_prerelease, sort_key

HOSTILE = [
    "",
    ".",
    "..",
    "...",
    "../../etc/passwd",
    "..\\..\\windows",
    "a/../b",
    "a/./b",
    "a//b",
    "/absolute",
    "//host/share",
    "\\\\host\\share",
    "C:\\windows",
    "C:/windows",
    "c:relative",
    "file:///etc/passwd",
    "%2e%2e%2f",
    "..%2f",
    "%252e%252e",
    "a%00b",
    "a\0b",
    "\0",
    "a\nb",
    "a\r\nSet-Cookie: x",
    "a\tb",
    "\x1b[31mred",
    " leading",
    "trailing ",
    "trailing.",
    ".hidden",
    "-option",
    "~",
    "~root",
    "$HOME",
    "`id`",
    "a;b",
    "a|b",
    "a&b",
    "a#b",
    "a?b",
    "a*b",
    "<script>",
    '"',
    "'",
    "ａｂｃ",  # full-width letters
    "аdа",  # Cyrillic
    "café",
    "cafe\u0301",
    "a\u202eb",  # turns the direction of the text
    "a\u200bb",  # no width
    "\u2024\u2024/",  # dots that normalise to dots
    "∕etc",  # a slash that is none
    "İ",
    "ß",
    "\ud800",
    "𝒂",
    "x" * 256,
    "é" * 200,
]
DEVICES = ["con", "CON", "nul", "NUL.txt", "aux.md", "com1", "COM1.json", "lpt9.tar", "prn"]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("check", [check_namespace, check_name, check_label, check_alias, Digest, Reference.parse])
def test_hostile_names(check: Any, text: str) -> None:
    with pytest.raises(InputError):
        check(text)


@pytest.mark.parametrize("check", [check_namespace, check_name])
def test_names_that_windows_takes_for_devices(check: Any) -> None:
    for text in ("con", "prn", "aux", "nul", "com1", "lpt9", "nul.data", "com1.2"):
        with pytest.raises(InputError, match="Windows takes it for a device"):
            check(text)
    for text in ("console", "con-1", "com", "com10", "auxiliary", "data.nul"):
        assert check(text) == text


@pytest.mark.parametrize(
    "text", [one for one in HOSTILE if one not in ("x" * 256,)] + ["x" * 201, "x/" * 16 + "x", "x" * 513]
)
def test_hostile_paths(text: str) -> None:
    with pytest.raises(InputError):
        SafePath(text)


@pytest.mark.parametrize(
    "text", ["", " x", "x ", "X", "é", "a\nb", "a\0b", "x" * 51, "<b>", '"', "a,b", "#x", "a%", "\ud800"]
)
def test_hostile_tags(text: str) -> None:
    with pytest.raises(InputError):
        check_tag(text)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("place", ["{}", "folder/{}", "{}/file.txt"])
def test_names_of_devices_are_no_paths(device: str, place: str) -> None:
    with pytest.raises(InputError):
        SafePath(place.format(device))


@pytest.mark.parametrize("name", ["Ada", "ADA", "a--b", "a..b", "a__b", "a-", "-a", "_a", "a.", "x" * 65, "a/b", "a@b"])
def test_names_have_one_spelling(name: str) -> None:
    for check in (check_namespace, check_name):
        with pytest.raises(InputError):
            check(name)


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_reserved_namespaces(name: str) -> None:
    with pytest.raises(InputError):
        check_namespace(name)


def test_a_namespace_has_two_letters_an_artefact_may_have_one() -> None:
    assert check_name("a") == "a"
    with pytest.raises(InputError):
        check_namespace("a")
    assert check_namespace("x" * 64) == check_name("x" * 64) == "x" * 64


@pytest.mark.parametrize(
    "text",
    [
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "A" * 64,
        "sha256:" + "g" * 64,
        "sha512:" + "a" * 64,
        "sha256-" + "a" * 64,
        "sha256:" + "a" * 64 + "\n",
        "\nsha256:" + "a" * 64,
        "sha256:../../../../../../" + "a" * 42,
        "sha256:" + "٣" * 64,  # digits that are not ours
        "a" * 64,
    ],
)
def test_what_is_no_digest(text: str) -> None:
    with pytest.raises(InputError):
        Digest(text)


@pytest.mark.parametrize(
    "text",
    [
        "ada",
        "ada/",
        "/demo",
        "ada/demo@",
        "ada/demo/more",
        "ada/demo@1.0@2.0",
        "ada/demo@sha256:short",
        "ada/demo@sha256:" + "A" * 64,
        "ada/demo@1.0+local",
        "ada/demo@../1.0",
        "admin/demo",
        "zoo:zoo:ada/demo",
        "http://host/ada/demo",
        "Ada/demo",
    ],
)
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(InputError):
        Reference.parse(text)


# --- properties ---------------------------------------------------------------------------------------------------------------

_PIECES = st.sampled_from(
    ["a", "Z", "0", "_", ".", "..", "/", "//", "\\", "-", "+", "@", "=", ",", "%2e", "con", "C:", " ", "\0", "é", "~"]
)
_PATHS = st.one_of(st.text(max_size=40), st.lists(_PIECES, max_size=10).map("".join))


@given(_PATHS)
def test_a_safe_path_stays_in_its_folder_on_every_system(text: str) -> None:
    try:
        path = SafePath(text)
    except InputError:
        return
    folder = Path("/store/folder")
    file = path.under(folder)
    assert file.is_relative_to(folder)
    assert ".." not in file.parts
    assert Path(str(file)).resolve().is_relative_to(folder)
    assert file.relative_to(folder).as_posix() == text
    there = PureWindowsPath("Z:/store") / text
    assert there.parts[:2] == ("Z:\\", "store")
    assert not PureWindowsPath(text).drive
    assert not any(part in ("..", ".") or part.endswith((".", " ")) for part in there.parts[2:])
    assert text.isascii()
    assert text.isprintable()


@given(st.one_of(_PATHS, st.from_regex(r"sha256:[0-9a-fA-F./]{60,68}\n?", fullmatch=True)))
def test_a_digest_is_64_digits_and_so_is_its_key(text: str) -> None:
    try:
        digest = Digest(text)
    except InputError:
        return
    assert re.fullmatch(r"sha256/[0-9a-f]{2}/[0-9a-f]{64}", digest.key)
    assert Path("/store", digest.key).resolve().is_relative_to("/store/sha256")


@given(st.binary(max_size=100))
def test_the_digest_of_bytes_is_a_digest(data: bytes) -> None:
    assert Digest(str(Digest.of(data))) == Digest.of(data)


_LABELS = st.from_regex(
    r"([0-9]!)?(0|[1-9][0-9]{0,6})(\.(0|[1-9][0-9]{0,3})){0,4}((a|b|rc)[0-9]{1,3})?(\.post[0-9]{1,3})?(\.dev[0-9]{1,3})?",
    fullmatch=True,
)


@given(_LABELS, _LABELS)
def test_the_order_of_sort_keys_is_that_of_pep_440(one: str, other: str) -> None:
    left, right = Version(one), Version(other)
    keys = sort_key(one).encode(), sort_key(other).encode()
    assert (keys[0] < keys[1]) == (left < right)
    assert (keys[0] == keys[1]) == (left == right)
    assert is_prerelease(one) == left.is_prerelease
    assert len(keys[0]) <= 200


@given(st.text(alphabet="0123456789.!+-_vabcrpostdev", max_size=70))
def test_a_label_that_is_taken_is_a_version_in_one_spelling(text: str) -> None:
    try:
        label = check_label(text)
    except InputError:
        return
    assert check_label(label) == label == str(Version(text))
    assert len(sort_key(label)) <= 200
    assert Reference.parse(f"ada/demo@{label}").label == label


@given(st.text(max_size=20))
def test_no_word_is_an_alias_and_a_label(text: str) -> None:
    try:
        alias = check_alias(text)
    except InputError:
        return
    with pytest.raises(InvalidVersion):
        Version(alias)
    assert Reference.parse(f"ada/demo@{alias}").alias == alias
