"""Draws docs/pictures/*.svg: what a terminal really shows, colours and all.

    just pictures        when tests/e2e/pictures.rs calls one old; needs Python 3.9, rich (pip install rich) and the ports of the README's first command

The commands below run in a pseudo-terminal in an empty folder with a copy of manifests/; nothing they print is
changed. GEMINID names the binary, which is the release build otherwise.
"""

import os
import pathlib
import pty
import re
import select
import shutil
import signal
import subprocess
import tempfile
import termios
import time
import urllib.request

from rich.console import Console
from rich.text import Text

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("GEMINID", ROOT / "target/release/geminid")).resolve()
COLUMNS = 128
ROWS = 60
# The longest that anything takes, in seconds.
PATIENCE = 90

# The frame around the text: no script, and no font but those of the reader.
FRAME = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" role="img">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace; \
font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }}
.{unique_id}-title {{ font-family: system-ui, 'Segoe UI', Helvetica, Arial, sans-serif; font-size: 18px; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" /></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


class Terminal:
    """A folder with manifests, and everything that was seen in it."""

    def __init__(self, folder):
        self.folder = folder
        self.seen = ""
        tools = folder / ".tools"
        tools.mkdir()
        (tools / "geminid").symlink_to(BINARY)
        self.environment = {"PATH": f"{tools}:/usr/bin:/bin", "HOME": str(folder), "TERM": "xterm-256color", "LANG": "C.UTF-8"}

    def start(self, command):
        """Types a command and lets it run."""
        self.seen += f"\x1b[1;32m$\x1b[0m \x1b[1m{command}\x1b[0m\n"
        own, its = pty.openpty()
        termios.tcsetwinsize(own, (ROWS, COLUMNS))
        process = subprocess.Popen(
            ["sh", "-c", f"exec {command}" if "|" not in command else command],
            cwd=self.folder, env=self.environment, stdin=its, stdout=its, stderr=its, start_new_session=True,
        )
        os.close(its)
        return process, own

    def read(self, own, until=None):
        """Takes in what is printed, to the end or until a text was seen and nothing more comes for a second."""
        text, end = "", time.monotonic() + PATIENCE
        while time.monotonic() < end:
            ready, _, _ = select.select([own], [], [], 1)
            if not ready:
                if until and until in text:
                    break
                continue
            try:
                piece = os.read(own, 65536)
            except OSError:
                break
            if not piece:
                break
            text += piece.decode()
        else:
            raise SystemExit(f"{until!r} was not seen in {text}")
        self.seen += text.replace("\r\n", "\n").rstrip("\n") + "\n"

    def run(self, command, codes=(0,)):
        """Types a command and waits for its end."""
        process, own = self.start(command)
        self.read(own)
        os.close(own)
        code = process.wait()
        if code not in codes:
            raise SystemExit(f"{command} ended with {code}:\n{self.seen}")
        self.seen += "\n"

    def draw(self, name, title):
        """Writes what was seen since the last picture."""
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="truecolor")
            # The folder is the home of what runs in it.
            seen = self.seen.rstrip("\n").replace(str(self.folder), "~")
            console.print(Text.from_ansi(seen), soft_wrap=False)
            # The frame cuts off what hangs below its last line.
            console.print(" ")
            svg = console.export_svg(title=title, code_format=FRAME, unique_id=name)
        if re.search(r"https?://(?!www\.w3\.org/2000/svg)[^<]*\.(woff|css)", svg) or "<script" in svg:
            raise SystemExit(f"{name}.svg asks for something from elsewhere")
        (ROOT / f"docs/pictures/{name}.svg").write_text(svg, encoding="utf-8")
        self.seen = ""


def metric(name):
    """The value of the series whose line begins so."""
    with urllib.request.urlopen("http://127.0.0.1:9797/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return next((line.rsplit(" ", 1)[1] for line in lines if line.startswith(name)), None)


def await_metric(name, value):
    end = time.monotonic() + PATIENCE
    while metric(name) != value:
        if time.monotonic() > end:
            raise SystemExit(f"{name} is {metric(name)}, not {value}")
        time.sleep(0.1)


def main():
    with tempfile.TemporaryDirectory(prefix="geminid-") as name:
        folder = pathlib.Path(name)
        shutil.copytree(ROOT / "manifests", folder / "manifests")
        # A pull request: one value another, one leaf gone, one new.
        shutil.copytree(ROOT / "manifests", folder / "pull-request")
        manifest = folder / "pull-request/redmond43/my-device.yaml"
        text = manifest.read_text(encoding="utf-8")
        for old, new in [
            ("power_level: 1", "power_level: 2\n      telemetry: {interval_s: 60}"),
            ("{region: US, plant: Redmond43}", "{plant: Redmond43}"),
        ]:
            if old not in text:
                raise SystemExit(f"{manifest} has no {old}")
            text = text.replace(old, new)
        manifest.write_text(text, encoding="utf-8")

        terminal = Terminal(folder)
        daemon, own = terminal.start("geminid run --embedded-hub --manifests manifests --audit-log audit.log")
        try:
            terminal.read(own, until="power_level = 1")
            terminal.seen += "\n"
            cellular = "twinquery_plant_cellular_devices"
            terminal.run("geminid plan --hub-json .geminid/hub.json --manifests pull-request", codes=(1,))
            terminal.run("geminid get")
            terminal.draw("terminal", "geminid: manifests in Git become device twins")

            question = "curl -s http://127.0.0.1:9797/metrics | grep -E '^(twinquery|geminid_hub_up|geminid_query_up)'"
            await_metric("twinquery_plant_devices", "1")
            await_metric(cellular, "0")
            terminal.run(question)
            await_metric(cellular, "1")
            terminal.seen += "\x1b[2m# a simulated device has reported connectivity: cellular meanwhile\x1b[0m\n"
            terminal.run(question)
            terminal.draw("metrics", "geminid: twin queries become metrics")
        finally:
            daemon.send_signal(signal.SIGINT)
            daemon.wait(PATIENCE)
            os.close(own)


main()
