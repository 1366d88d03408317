"""Brings twins to what a JSON file wants, by Microsoft's Python service SDK: get, compare, update with the etag.

    sdk.py HUB_JSON WANTED_JSON THREADS

Prints `ready UNIX_TIME CPU_SECONDS` when everything is imported and read, so that start-up can be told from work. Each
thread has a client of its own, which is faster than one for all: a client's pool keeps ten connections.
"""

import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import Twin, TwinProperties

# A write that somebody else's write came before is tried again from a new read, as geminid does.
ATTEMPTS_MAX = 5

hub_json, wanted_json, threads = sys.argv[1:]
with open(hub_json, encoding="utf-8") as file:
    connection = json.load(file)["ownerConnectionString"]
with open(wanted_json, encoding="utf-8") as file:
    wanted = json.load(file)

own = threading.local()


def client():
    if not hasattr(own, "registry"):
        own.registry = IoTHubRegistryManager(connection)
    return own.registry


def missing(want, have):
    """What of `want` is not in `have`, as a merge patch."""
    patch = {}
    for key, value in want.items():
        if isinstance(value, dict) and isinstance(have.get(key), dict):
            inner = missing(value, have[key])
            if inner:
                patch[key] = inner
        elif have.get(key) != value:
            patch[key] = value
    return patch


def bring(entry):
    for attempt in range(ATTEMPTS_MAX):
        twin = client().get_twin(entry["deviceId"])
        tags = missing(entry["tags"], twin.tags or {})
        desired = missing(entry["desired"], twin.properties.desired)
        if not tags and not desired:
            return
        patch = Twin(tags=tags or None, properties=TwinProperties(desired=desired) if desired else None)
        try:
            client().update_twin(entry["deviceId"], patch, twin.etag)
            return
        except Exception as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status != 412 or attempt == ATTEMPTS_MAX - 1:
                raise


print("ready", time.time(), time.process_time(), flush=True)
if int(threads) == 1:
    for entry in wanted:
        bring(entry)
else:
    with ThreadPoolExecutor(max_workers=int(threads)) as pool:
        # The results are asked for, so that an error of any of them ends the run.
        list(pool.map(bring, wanted))
