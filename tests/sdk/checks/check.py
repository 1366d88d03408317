"""What the Python checks share: running one check, comparing, the hub under test."""

import base64
import hashlib
import hmac
import json
import os
import subprocess
import sys
import threading
import time
import traceback
import urllib.parse

from msrest.exceptions import HttpOperationError

# One check may take so long; an SDK that waits for an answer that never comes must not hold the rest up.
CHECK_SECONDS_MAX = 40
# How long a condition may take to come true.
WAIT_SECONDS_MAX = 20

_group = ""


def group(name):
    """Names the checks that follow."""
    global _group
    _group = name


def check(name):
    """Runs the decorated function at once, as one check, and prints how it ended."""

    def run(function):
        problem = [f"no end within {CHECK_SECONDS_MAX} s"]

        def body():
            try:
                function()
                problem.clear()
            except Exception as error:
                problem[0] = f"{type(error).__name__}: {error}"
                traceback.print_exc()

        worker = threading.Thread(target=body, daemon=True)
        worker.start()
        worker.join(CHECK_SECONDS_MAX)
        if problem:
            print(f"FAILED  {_group}: {name}: {' '.join(problem[0].split())[:300]}", flush=True)
        else:
            print(f"passed  {_group}: {name}", flush=True)

    return run


def done():
    """Ends the program: threads of an SDK that still wait do not keep it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def same(actual, expected, what="value"):
    if actual != expected:
        raise AssertionError(f"{what}: expected {expected!r}, got {actual!r}")


def true(condition, what):
    if not condition:
        raise AssertionError(what)


def refused(call, status, code=None):
    """The hub must answer `call` with this status, and with this code in the header that tells errors apart."""
    try:
        result = call()
    except HttpOperationError as error:
        same(error.response.status_code, status, "status")
        if code is not None:
            same(error.response.headers.get("iothub-errorcode"), code, "iothub-errorcode")
        return error
    raise AssertionError(f"expected status {status}, got an answer: {result}")


def until(condition, what, seconds=WAIT_SECONDS_MAX):
    """Waits until `condition()` gives something true, and returns it."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)


class Hub:
    """The hub under test, as its hub.json describes it."""

    def __init__(self):
        with open(os.path.join(os.environ["SDK_RUN"], "state", "hub.json"), encoding="utf-8") as file:
            described = json.load(file)
        self.host = described["hostName"]
        self.owner = described["ownerConnectionString"]
        self.service = described["serviceConnectionString"]
        self._device = described["deviceConnectionStringTemplate"]

    def device(self, device_id, key, module_id=None):
        """The connection string of a device or of one of its modules."""
        text = self._device.replace("{device_id}", device_id).replace("{key}", key)
        return text if module_id is None else text.replace(";SharedAccessKey=", f";ModuleId={module_id};SharedAccessKey=")

    @staticmethod
    def restart(*flags):
        """Ends the hub's process as a signal does and starts another one, with these flags, on the same state folder."""
        subprocess.run([os.environ["SDK_HUB"], "restart", *flags], check=True)

    @staticmethod
    def kill():
        """Ends the hub's process in the middle of whatever it does."""
        subprocess.run([os.environ["SDK_HUB"], "kill"], check=True)

    @staticmethod
    def start():
        """Starts a process of the hub on the state folder that the last one left."""
        subprocess.run([os.environ["SDK_HUB"], "start"], check=True)


def own_key(number):
    """A key as a caller may choose it: base64 of 32 bytes."""
    return base64.b64encode(bytes([number]) * 32).decode("ascii")


def device_token(path, key, policy=None, seconds=3600):
    """A token as a back end signs it for a device: the resource, the signature, the end, perhaps the policy."""
    resource = urllib.parse.quote(path, safe="")
    expiry = int(time.time()) + seconds
    digest = hmac.new(base64.b64decode(key), f"{resource}\n{expiry}".encode(), hashlib.sha256).digest()
    signature = urllib.parse.quote(base64.b64encode(digest), safe="")
    end = f"&skn={policy}" if policy else ""
    return f"SharedAccessSignature sr={resource}&sig={signature}&se={expiry}{end}"
