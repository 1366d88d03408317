"""azure-iot-device (Python): what must outlive a connection, a token and a process of the hub.

The SDK subscribes once and never again: a session's subscriptions are the hub's to keep.
"""

import queue

from azure.iot.device import IoTHubDeviceClient, MethodResponse
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import CloudToDeviceMethod, QuerySpecification, Twin, TwinProperties

from check import WAIT_SECONDS_MAX, Hub, check, done, group, own_key, same, true, until

# The SDK renews a token 120 s before its end, so this one after two seconds.
TOKEN_SECONDS = 122

hub = Hub()


def registry():
    """A new one each time: the HTTP connections of an old one end with the hub's process."""
    return IoTHubRegistryManager(hub.owner)


def create(device_id):
    registry().create_device_with_sas(device_id, own_key(1), own_key(2), "enabled")
    return device_id


def write(device_id, **values):
    """Writes desired values and returns what the device must be told."""
    twin = registry().update_twin(device_id, Twin(properties=TwinProperties(desired=values)))
    return {**values, "$version": twin.properties.desired["$version"]}


class Device:
    """A client that counts its connections and keeps what it is told."""

    def __init__(self, device_id, **options):
        text = hub.device(device_id, own_key(1))
        self.client = IoTHubDeviceClient.create_from_connection_string(text, connection_retry_interval=1, **options)
        self.patches = queue.Queue()
        self.connections = 0
        self.client.on_connection_state_change = self._count
        self.client.on_twin_desired_properties_patch_received = self.patches.put
        self.client.on_method_request_received = self._answer
        until(lambda: self.connections == 1, "the first connection")
        # The SDK shows a handler that made it connect the desired section as it is, once it may be answered.
        section = self.client.get_twin()["desired"]
        same(self.told(), section)

    def _count(self):
        if self.client.connected:
            self.connections += 1

    def _answer(self, request):
        self.client.send_method_response(MethodResponse.create_from_method_request(request, 200, "here"))

    def back(self, connections):
        """Waits for a connection, and until the SDK has compared its twin after it, as it does."""
        until(lambda: self.connections >= connections, f"connection {connections}")
        self.client.get_twin()

    def told(self):
        try:
            return self.patches.get(timeout=WAIT_SECONDS_MAX)
        except queue.Empty:
            raise AssertionError(f"no notification within {WAIT_SECONDS_MAX} s") from None


def call(device_id):
    method = CloudToDeviceMethod(method_name="ping", payload={}, response_timeout_in_seconds=10)
    return registry().invoke_device_method(device_id, method).payload


group("python device, sessions")


@check("after disconnect and connect the device is told again")
def _():
    device = Device(create("px-again"))
    device.client.disconnect()
    device.client.connect()
    device.back(2)
    sent = write("px-again", step=1)
    same((device.told(), call("px-again")), (sent, "here"))
    device.client.shutdown()


@check("after a renewed token the device is told again, over TLS and in a websocket")
def _():
    for device_id, options in (("px-token", {}), ("px-token-ws", {"websockets": True})):
        device = Device(create(device_id), sastoken_ttl=TOKEN_SECONDS, **options)
        device.back(2)
        sent = write(device_id, step=1)
        same((device.told(), call(device_id)), (sent, "here"))
        device.client.shutdown()


for device_id, way, options in (("px-restart", "over TLS", {}), ("px-restart-ws", "in a websocket", {"websockets": True})):

    @check(f"after a restart of the hub the device is told again, {way}")
    def _(device_id=device_id, options=options):
        device = Device(create(device_id), **options)
        before = registry().get_twin(device_id)
        hub.restart()
        device.back(2)
        same(registry().get_twin(device_id).etag, before.etag, "etag")
        sent = write(device_id, step=1)
        same((device.told(), call(device_id)), (sent, "here"))
        device.client.patch_twin_reported_properties({"after": "restart"})
        device.client.shutdown()


@check("a change made while the device was away reaches it when it is back")
def _():
    device = Device(create("px-away"))
    same(device.client.get_twin()["desired"]["$version"], 1)
    device.client.disconnect()
    sent = write("px-away", missed=True)
    device.client.connect()
    same(device.told(), sent)
    device.client.shutdown()


@check("a killed hub has lost nothing that it acknowledged")
def _():
    create("px-killed")
    device = Device("px-killed")
    write("px-killed", kept=1)
    device.told()
    device.client.patch_twin_reported_properties({"kept": 2})
    before = registry().get_twin("px-killed")
    hub.kill()
    hub.start()
    after = registry().get_twin("px-killed")
    same((after.etag, after.version, after.properties.desired["kept"]), (before.etag, before.version, 1))
    same(after.properties.reported["kept"], 2)
    device.back(2)
    sent = write("px-killed", step=1)
    same((device.told(), call("px-killed")), (sent, "here"))
    device.client.shutdown()


@check("after a restart queries find what was found before")
def _():
    text = "SELECT deviceId FROM devices WHERE properties.reported.kept = 2"
    rows = registry().query_iot_hub(QuerySpecification(query=text)).items
    same([row.device_id for row in rows], ["px-killed"])
    true(registry().get_twin("px-killed").connection_state == "Disconnected", "the device is away")


done()
