"""The device of the twin tutorial: reports how it is connected, and prints what it is told.

Takes the connection string from DEVICE_CONNECTION. The tutorial makes a *module* client from the connection string of
a *device*; so does this, since it works: the client is then the device.
"""

import os
import threading

from azure.iot.device import IoTHubModuleClient


def main():
    client = IoTHubModuleClient.create_from_connection_string(os.environ["DEVICE_CONNECTION"])

    def on_desired(patch):
        print("desired:", patch, flush=True)

    client.on_twin_desired_properties_patch_received = on_desired
    try:
        client.patch_twin_reported_properties({"connectivity": "cellular"})
        print("reported", flush=True)
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        client.shutdown()


if __name__ == "__main__":
    main()
