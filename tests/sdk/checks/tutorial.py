"""The two programs of the twin tutorial, step by step, each as a process of its own."""

import ast
import os
import queue
import signal
import subprocess
import sys
import threading

from azure.iot.hub import IoTHubRegistryManager

from check import WAIT_SECONDS_MAX, Hub, check, done, group, own_key, same

TUTORIAL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tutorial")
DEVICE = "myDevice"

hub = Hub()
lines = queue.Queue()
device = []


def back_end():
    """Runs the service program to its end and returns what it printed."""
    ended = subprocess.run(
        [sys.executable, os.path.join(TUTORIAL, "add_tags_and_query.py")],
        env={**os.environ, "HUB_CONNECTION": hub.owner, "DEVICE_ID": DEVICE},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return [line.rstrip() for line in ended.stdout.splitlines()]


def next_line():
    try:
        return lines.get(timeout=WAIT_SECONDS_MAX)
    except queue.Empty:
        raise AssertionError(f"the device printed nothing within {WAIT_SECONDS_MAX} s") from None


def next_patch():
    """The next patch that the device prints."""
    name, _, patch = next_line().partition(": ")
    same(name, "desired")
    return ast.literal_eval(patch)


group("tutorial")


@check("a device is registered")
def _():
    created = IoTHubRegistryManager(hub.owner).create_device_with_sas(DEVICE, own_key(1), own_key(2), "enabled")
    same(created.device_id, DEVICE)


@check("the first run finds the device in the plant and none on cellular")
def _():
    same(back_end(), [f"in the plant: {DEVICE}", "in the plant, on cellular:"])


@check("the device reports cellular")
def _():
    process = subprocess.Popen(
        [sys.executable, "-u", os.path.join(TUTORIAL, "report_connectivity.py")],
        env={**os.environ, "DEVICE_CONNECTION": hub.device(DEVICE, own_key(1))},
        stdout=subprocess.PIPE,
        text=True,
    )
    device.append(process)
    threading.Thread(target=lambda: [lines.put(line.rstrip()) for line in process.stdout], daemon=True).start()
    # The SDK shows a handler that made it connect the desired section as it is; that comes beside the report.
    first = sorted(next_line() for _ in range(2))
    same((ast.literal_eval(first[0].partition(": ")[2]), first[1]), ({"power_level": 1, "$version": 2}, "reported"))


@check("the second run finds the device in both queries")
def _():
    same(back_end(), [f"in the plant: {DEVICE}", f"in the plant, on cellular: {DEVICE}"])


@check("the device prints the desired patch of the second run")
def _():
    same(next_patch(), {"power_level": 1, "$version": 3})


@check("the device ends at Ctrl-C")
def _():
    device[0].send_signal(signal.SIGINT)
    same(device[0].wait(WAIT_SECONDS_MAX), 0, "exit code")


for process in device:
    process.kill()
done()
