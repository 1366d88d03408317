"""Corpora as text, so that they can be kept: one input a line, what is no printable ASCII escaped.

    fuzz/corpora.py pack TARGET FOLDER     the smallest inputs of a folder, up to a bound, into fuzz/corpora/TARGET.txt
    fuzz/corpora.py unpack TARGET FOLDER   the inputs of fuzz/corpora/TARGET.txt into a folder, a file each
"""

import hashlib
import pathlib
import sys

# Of the text of one target, in bytes; longer inputs are found again by whoever fuzzes longer.
TEXT_BYTES_MAX = 20_000
ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
LETTERS = {"\\": b"\\", "n": b"\n", "r": b"\r", "t": b"\t"}


def escaped(data):
    """Bytes as one line."""
    texts = (ESCAPES.get(chr(byte)) or (chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}") for byte in data)
    line = "".join(texts)
    # Editors take spaces at the end of a line away.
    return line[:-1] + "\\x20" if line.endswith(" ") else line


def unescaped(line):
    """The bytes of a line."""
    data, at = bytearray(), 0
    while at < len(line):
        if line[at] != "\\":
            data += line[at].encode("ascii")
            at += 1
        elif line[at + 1] == "x":
            data.append(int(line[at + 2 : at + 4], 16))
            at += 4
        else:
            data += LETTERS[line[at + 1]]
            at += 2
    return bytes(data)


def pack(text, folder):
    inputs = sorted((path.read_bytes() for path in folder.iterdir()), key=lambda data: (len(data), data))
    lines, size = [], 0
    for data in inputs:
        line = escaped(data)
        if unescaped(line) != data:
            raise SystemExit(f"{line} does not tell {data!r}")
        size += len(line) + 1
        if size > TEXT_BYTES_MAX:
            break
        lines.append(line + "\n")
    text.parent.mkdir(exist_ok=True)
    text.write_text("".join(sorted(lines)), encoding="ascii", newline="\n")
    print(f"{text.name}: {len(lines)} of {len(inputs)} inputs")


def unpack(text, folder):
    for line in text.read_text(encoding="ascii").split("\n")[:-1]:
        data = unescaped(line)
        # As libFuzzer names them, so that none is there twice.
        (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


def main():
    match sys.argv[1:]:
        case [("pack" | "unpack") as what, target, folder]:
            text = pathlib.Path(__file__).resolve().parent / f"corpora/{target}.txt"
            (pack if what == "pack" else unpack)(text, pathlib.Path(folder))
        case _:
            raise SystemExit(__doc__)


main()
