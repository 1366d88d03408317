"""azure-iot-device (Python): twins, desired notifications, methods, telemetry, modules, websockets, refusals."""

import queue
import time

from azure.iot.device import IoTHubDeviceClient, IoTHubModuleClient, Message, MethodResponse
from azure.iot.device.exceptions import ClientError, CredentialError
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import CloudToDeviceMethod, Twin, TwinProperties

from check import WAIT_SECONDS_MAX, Hub, check, device_token, done, group, own_key, refused, same, true, until

hub = Hub()
registry = IoTHubRegistryManager(hub.owner)
service = IoTHubRegistryManager(hub.service)


def desired(**values):
    return Twin(properties=TwinProperties(desired=values))


def settings(section):
    return {key: value for key, value in section.items() if not key.startswith("$")}


def create(device_id, status="enabled"):
    registry.create_device_with_sas(device_id, own_key(1), own_key(2), status)
    return device_id


def client_of(device_id, key=own_key(1), **options):
    return IoTHubDeviceClient.create_from_connection_string(hub.device(device_id, key), **options)


def received(patches):
    try:
        return patches.get(timeout=WAIT_SECONDS_MAX)
    except queue.Empty:
        raise AssertionError(f"no notification within {WAIT_SECONDS_MAX} s") from None


def listen(listener):
    """A queue of what the client is told from now on.

    A handler that makes the SDK connect is shown the desired section as it is, once the client may be answered.
    """
    told, connects = queue.Queue(), not listener.connected
    listener.on_twin_desired_properties_patch_received = told.put
    section = listener.get_twin()["desired"]
    if connects:
        same(received(told), section, "first look")
    return told


def nothing_more(patches):
    """A later marker would come behind anything still on its way, so an empty queue after one is proof."""
    same(patches.qsize(), 0, "further notifications")


def call(device_id, name, payload=None, seconds=10):
    method = CloudToDeviceMethod(method_name=name, payload=payload, response_timeout_in_seconds=seconds)
    return service.invoke_device_method(device_id, method)


def exercised(make_client, device_id):
    """What every way of connecting must be able to do: twin, report, notification, method, telemetry."""
    client = make_client()
    try:
        patches = listen(client)
        client.on_method_request_received = lambda request: client.send_method_response(
            MethodResponse.create_from_method_request(request, 201, {"echo": request.payload})
        )
        twin = client.get_twin()
        same(sorted(twin), ["desired", "reported"])
        client.patch_twin_reported_properties({"way": "in"})
        same(client.get_twin()["reported"]["way"], "in")
        version = service.update_twin(device_id, desired(step=1)).properties.desired["$version"]
        same(received(patches), {"step": 1, "$version": version})
        answer = call(device_id, "reboot", {"now": True})
        same((answer.status, answer.payload), (201, {"echo": {"now": True}}))
        client.send_message("telemetry")
        same(service.get_twin(device_id).connection_state, "Connected")
    finally:
        client.shutdown()
    until(lambda: service.get_twin(device_id).connection_state == "Disconnected", "the twin shows the end")


group("python device, connecting")


@check("over TLS: twin, report, notification, method, telemetry")
def _():
    create("pd-tls")
    exercised(lambda: client_of("pd-tls"), "pd-tls")


@check("in a websocket: twin, report, notification, method, telemetry")
def _():
    create("pd-ws")
    exercised(lambda: client_of("pd-ws", websockets=True), "pd-ws")


@check("by a gateway's name, when the hub's own has a port")
def _():
    text = hub.device("pd-tls", own_key(1)).replace(f"HostName={hub.host};", f"HostName={hub.host}:443;")
    client = IoTHubDeviceClient.create_from_connection_string(f"{text};GatewayHostName={hub.host}")
    true("desired" in client.get_twin(), "the twin is there")
    client.shutdown()


@check("with the secondary key")
def _():
    client = client_of("pd-tls", own_key(2))
    client.connect()
    same(client.connected, True)
    client.shutdown()


@check("with a token signed elsewhere, by the device's key or by a policy's")
def _():
    path = f"{hub.host}/devices/pd-tls"
    policy_key = hub.owner.split(";SharedAccessKey=")[1]
    for text in (device_token(path, own_key(1)), device_token(path, policy_key, "iothubowner")):
        client = IoTHubDeviceClient.create_from_sastoken(text)
        client.connect()
        true("desired" in client.get_twin(), "the twin is there")
        client.shutdown()


def not_let_in(client):
    try:
        client.connect()
    except CredentialError:
        return
    finally:
        client.shutdown()
    raise AssertionError("the hub let the device in")


@check("a wrong key is refused as a wrong credential")
def _():
    not_let_in(client_of("pd-tls", own_key(9)))
    not_let_in(client_of("pd-tls", own_key(9), websockets=True))


@check("a device that does not exist is refused as a wrong credential")
def _():
    not_let_in(client_of("pd-absent"))


@check("a disabled device is refused, and let in once enabled")
def _():
    create("pd-disabled", "disabled")
    not_let_in(client_of("pd-disabled"))
    registry.update_device_with_sas("pd-disabled", "*", own_key(1), own_key(2), "enabled")
    client = client_of("pd-disabled")
    client.connect()
    client.shutdown()


@check("a token of another device is refused")
def _():
    text = device_token(f"{hub.host}/devices/pd-ws", own_key(9))
    not_let_in(IoTHubDeviceClient.create_from_sastoken(text))


@check("a service policy without the right to connect devices is refused")
def _():
    service_key = hub.service.split(";SharedAccessKey=")[1]
    not_let_in(IoTHubDeviceClient.create_from_sastoken(device_token(f"{hub.host}/devices/pd-tls", service_key, "service")))


@check("a second connection of a device ends the first")
def _():
    first, second = client_of("pd-tls", connection_retry=False), client_of("pd-tls")
    first.connect()
    second.connect()
    until(lambda: not first.connected, "the first is dropped")
    same(second.connected, True)
    true("desired" in second.get_twin(), "the second goes on")
    first.shutdown()
    same(service.get_twin("pd-tls").connection_state, "Connected")
    second.shutdown()


group("python device, twins")

device = create("pd-twin")
client = client_of(device)
patches = None


@check("the twin holds desired and reported with their versions, and no tags or metadata")
def _():
    service.update_twin(device, Twin(tags={"hidden": 1}, properties=TwinProperties(desired={"a": {"b": [1, "x"]}})))
    same(
        client.get_twin(),
        {"desired": {"a": {"b": [1, "x"]}, "$version": 2}, "reported": {"$version": 1}},
    )


@check("reported values merge, null removes, and only the versions move")
def _():
    before = service.get_twin(device)
    client.patch_twin_reported_properties({"state": {"fan": "on", "rpm": 900}, "list": [1, 2]})
    client.patch_twin_reported_properties({"state": {"rpm": None}, "list": [3]})
    after = service.get_twin(device)
    same(settings(after.properties.reported), {"state": {"fan": "on"}, "list": [3]})
    same((after.properties.reported["$version"], after.version), (3, before.version + 2))
    same(after.etag, before.etag, "etag")
    metadata = after.properties.reported["$metadata"]["state"]["fan"]
    same(sorted(metadata), ["$lastUpdated"], "metadata of a reported value")


@check("a report that breaks a rule is refused, and the connection goes on")
def _():
    before = service.get_twin(device).properties.reported["$version"]
    for patch in ({"a.b": 1}, {"a": "x" * 5000}, {"n": 2**60}):
        try:
            client.patch_twin_reported_properties(patch)
        except ClientError:
            continue
        raise AssertionError(f"taken: {list(patch)}")
    same(service.get_twin(device).properties.reported["$version"], before, "reported version")
    client.patch_twin_reported_properties({"good": True})
    same(client.connected, True)


@check("desired changes arrive in order, each with its version")
def _():
    global patches
    patches = listen(client)
    versions = [service.update_twin(device, desired(step=step)).properties.desired["$version"] for step in range(20)]
    same([received(patches) for _ in versions], [{"step": step, "$version": version} for step, version in enumerate(versions)])


@check("a removed value arrives as null, the same value again too")
def _():
    version = service.update_twin(device, desired(step=None)).properties.desired["$version"]
    same(received(patches), {"step": None, "$version": version})
    service.update_twin(device, desired(again=1))
    version = service.update_twin(device, desired(again=1)).properties.desired["$version"]
    same([received(patches)["again"], received(patches)], [1, {"again": 1, "$version": version}])


@check("a replacement arrives with null for what is gone")
def _():
    sent = Twin(tags={}, properties=TwinProperties(desired={"again": 1, "new": {"k": 2}}))
    version = service.replace_twin(device, sent, "*").properties.desired["$version"]
    same(received(patches), {"a": None, "again": 1, "new": {"k": 2}, "$version": version})


@check("tags and reports are not told to the device")
def _():
    service.update_twin(device, Twin(tags={"quiet": True}))
    client.patch_twin_reported_properties({"quiet": True})
    version = service.update_twin(device, desired(marker=1)).properties.desired["$version"]
    same(received(patches), {"marker": 1, "$version": version})
    nothing_more(patches)


group("python device, methods and telemetry")


@check("methods carry any payload both ways")
def _():
    def answer(request):
        client.send_method_response(MethodResponse.create_from_method_request(request, 200, [request.name, request.payload]))

    client.on_method_request_received = answer
    for payload in ({"a": [1, None]}, "text", 5, [True], {}):
        result = call(device, "echo", payload)
        same((result.status, result.payload), (200, ["echo", payload]))


@check("an answer without payload, and a failure of the device, are handed on")
def _():
    client.on_method_request_received = lambda request: client.send_method_response(
        MethodResponse.create_from_method_request(request, 500)
    )
    result = call(device, "fails", {})
    same((result.status, result.payload), (500, None))


@check("a method that the device does not answer ends in time")
def _():
    client.on_method_request_received = lambda request: None
    start = time.monotonic()
    refused(lambda: call(device, "silent", {}, seconds=5), 504)
    true(4.5 < time.monotonic() - start < 9, "after the five seconds it was given")


@check("a method for a device that is away is refused at once")
def _():
    create("pd-away")
    refused(lambda: call("pd-away", "reboot", {}), 404)
    refused(lambda: call("pd-absent", "reboot", {}), 404)


@check("telemetry with properties is taken, and moves the last activity")
def _():
    message = Message('{"t":21.5}', message_id="m1", content_encoding="utf-8", content_type="application/json")
    message.custom_properties["level"] = "hïgh & low"
    client.send_message(message)
    for number in range(20):
        client.send_message(f"plain {number}")
    activity = service.get_twin(device).last_activity_time
    true(abs(time.time() - activity.timestamp()) < 60, f"last activity is now: {activity}")


@check("the hub counts the connected devices")
def _():
    same(registry.get_service_statistics().connected_device_count, 1)


@check("a deleted device is cut off and not let in again")
def _():
    create("pd-deleted")
    gone = client_of("pd-deleted", connection_retry=False)
    gone.connect()
    registry.delete_device("pd-deleted")
    until(lambda: not gone.connected, "the connection ends")
    gone.shutdown()
    not_let_in(client_of("pd-deleted"))


client.shutdown()

group("python device, modules")


def module_client(**options):
    return IoTHubModuleClient.create_from_connection_string(hub.device("pd-edge", own_key(3), "m"), **options)


@check("a module has its own twin, notifications, methods and telemetry")
def _():
    create("pd-edge")
    registry.create_module_with_sas("pd-edge", "m", "", own_key(3), own_key(4))
    module = module_client()
    try:
        told = listen(module)
        module.on_method_request_received = lambda request: module.send_method_response(
            MethodResponse.create_from_method_request(request, 200, {"module": "m"})
        )
        same(module.get_twin(), {"desired": {"$version": 1}, "reported": {"$version": 1}})
        module.patch_twin_reported_properties({"from": "module"})
        same(settings(service.get_module_twin("pd-edge", "m").properties.reported), {"from": "module"})
        same(settings(service.get_twin("pd-edge").properties.reported), {}, "reported of the device")
        service.update_twin("pd-edge", desired(not_for="the module"))
        service.update_module_twin("pd-edge", "m", desired(interval=5))
        same(received(told), {"interval": 5, "$version": 2})
        method = CloudToDeviceMethod(method_name="who", payload={}, response_timeout_in_seconds=10)
        same(service.invoke_device_module_method("pd-edge", "m", method).payload, {"module": "m"})
        module.send_message("from the module")
        same(service.get_module_twin("pd-edge", "m").connection_state, "Connected")
        same(service.get_twin("pd-edge").connection_state, "Disconnected", "state of the device")
    finally:
        module.shutdown()


@check("a module connects in a websocket")
def _():
    module = module_client(websockets=True)
    same(module.get_twin()["reported"]["from"], "module")
    module.shutdown()


@check("a module's wrong key is refused, the device's key too")
def _():
    for key in (own_key(9), own_key(1)):
        not_let_in(IoTHubModuleClient.create_from_connection_string(hub.device("pd-edge", key, "m")))


done()
