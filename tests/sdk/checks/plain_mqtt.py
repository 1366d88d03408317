"""paho-mqtt: the hub's MQTT as a client without any SDK meets it, with what SDKs never do."""

import json
import queue
import socket
import ssl

from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import Twin, TwinProperties
from paho.mqtt import client as mqtt

from check import WAIT_SECONDS_MAX, Hub, check, device_token, done, group, own_key, same, true, until

DEVICE = "mq-device"

hub = Hub()
registry = IoTHubRegistryManager(hub.owner)
registry.create_device_with_sas(DEVICE, own_key(1), own_key(2), "enabled")


class Plain:
    """One connection; what arrives is kept as (topic, payload)."""

    def __init__(self, device_id=DEVICE, clean=True, user=None, password=None, will=None):
        self.client = mqtt.Client(client_id=device_id, clean_session=clean, protocol=mqtt.MQTTv311, reconnect_on_failure=False)
        self.client.username_pw_set(
            user or f"{hub.host}/{device_id}/?api-version=2021-04-12",
            password or device_token(f"{hub.host}/devices/{device_id}", own_key(1)),
        )
        self.client.tls_set()
        if will:
            self.client.will_set(*will)
        self.answer, self.granted, self.inbox = queue.Queue(), queue.Queue(), queue.Queue()
        self.ended = False
        self.client.on_connect = lambda _client, _data, flags, code: self.answer.put((code, flags["session present"]))
        self.client.on_subscribe = lambda _client, _data, _id, granted: self.granted.put(list(granted))
        self.client.on_message = lambda _client, _data, message: self.inbox.put((message.topic, message.payload))
        self.client.on_disconnect = lambda *_: setattr(self, "ended", True)

    def connect(self):
        """Connects and returns the code and the session-present flag of the CONNACK."""
        self.client.connect(hub.host, 8883, keepalive=60)
        self.client.loop_start()
        return self.answer.get(timeout=WAIT_SECONDS_MAX)

    def subscribe(self, topic, qos=1):
        self.client.subscribe(topic, qos)
        return self.granted.get(timeout=WAIT_SECONDS_MAX)

    def publish(self, topic, payload="", qos=1, retain=False):
        self.client.publish(topic, payload, qos, retain)

    def next(self):
        topic, payload = self.inbox.get(timeout=WAIT_SECONDS_MAX)
        return topic, json.loads(payload) if payload else None

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()

    def __enter__(self):
        same(self.connect()[0], 0, "CONNACK")
        return self

    def __exit__(self, *_):
        self.close()


def write(**values):
    twin = registry.update_twin(DEVICE, Twin(properties=TwinProperties(desired=values)))
    return twin.properties.desired["$version"]


def hung_up(sock, noise):
    """Sends noise and reads until the other side ends; a reset is an end too."""
    try:
        sock.sendall(noise)
        while sock.recv(65536):
            pass
    except (ConnectionError, ssl.SSLError):
        pass


group("plain mqtt, connecting")

for what, options in [
    ("a password that is no token", {"password": "open sesame"}),
    ("a token of another key", {"password": device_token(f"{hub.host}/devices/{DEVICE}", own_key(9))}),
    ("an expired token", {"password": device_token(f"{hub.host}/devices/{DEVICE}", own_key(1), seconds=-60)}),
    ("a token for another device", {"password": device_token(f"{hub.host}/devices/other", own_key(1))}),
    ("a user name of another device", {"user": f"{hub.host}/other/?api-version=2021-04-12"}),
    ("a user name that is none", {"user": "me"}),
]:

    @check(f"{what} is refused with a CONNACK")
    def _(options=options):
        plain = Plain(**options)
        code, _ = plain.connect()
        plain.close()
        true(code in (4, 5), f"code 4 or 5: {code}")


@check("a session is present when one was kept, and not after a clean one")
def _():
    for clean, present in [(True, 0), (False, 0), (False, 1), (False, 1), (True, 0), (False, 0)]:
        plain = Plain(clean=clean)
        same(plain.connect(), (0, present), f"CONNACK with clean session {clean}")
        plain.close()


@check("subscriptions of a kept session need not be made again, those of a clean one do")
def _():
    with Plain(clean=False) as plain:
        plain.subscribe("$iothub/twin/PATCH/properties/desired/#")
    with Plain(clean=False) as plain:
        version = write(step=1)
        same(plain.next(), (f"$iothub/twin/PATCH/properties/desired/?$version={version}", {"step": 1, "$version": version}))
    with Plain(clean=True) as plain:
        write(step=2)
        plain.subscribe("$iothub/twin/res/#")
        plain.publish("$iothub/twin/GET/?$rid=after")
        same(plain.next()[0], "$iothub/twin/res/200/?$rid=after")


group("plain mqtt, twins")


@check("the request id comes back as it was sent")
def _():
    with Plain() as plain:
        plain.subscribe("$iothub/twin/res/#", 0)
        for rid in ("1", "9f-Az", "a%20b"):
            plain.publish(f"$iothub/twin/GET/?$rid={rid}", qos=0)
            topic, body = plain.next()
            same(topic, f"$iothub/twin/res/200/?$rid={rid}")
            same(sorted(body), ["desired", "reported"])


@check("a report is acknowledged with its version, a bad one refused with code and message")
def _():
    with Plain() as plain:
        plain.subscribe("$iothub/twin/res/#")
        plain.publish("$iothub/twin/PATCH/properties/reported/?$rid=1", '{"level": 1}')
        same(plain.next(), ("$iothub/twin/res/204/?$rid=1&$version=2", None))
        for rid, body in enumerate(['{"a.b": 1}', '{"a": [null]}', "[]", "no json", "", '{"a": 4503599627370496}'], 2):
            plain.publish(f"$iothub/twin/PATCH/properties/reported/?$rid={rid}", body)
            topic, answer = plain.next()
            same(topic, f"$iothub/twin/res/400/?$rid={rid}", f"answer to {body}")
            true(answer["errorCode"] and answer["message"], "code and message are there")
        same(registry.get_twin(DEVICE).properties.reported["$version"], 2)


@check("a report on a stale version is refused")
def _():
    with Plain() as plain:
        plain.subscribe("$iothub/twin/res/#")
        plain.publish("$iothub/twin/PATCH/properties/reported/?$rid=1&$version=1", '{"level": 2}')
        same(plain.next()[0], "$iothub/twin/res/412/?$rid=1")
        plain.publish("$iothub/twin/PATCH/properties/reported/?$rid=2&$version=2", '{"level": 2}')
        same(plain.next()[0], "$iothub/twin/res/204/?$rid=2&$version=3")


group("plain mqtt, rules")


@check("QoS 2 is granted as 1")
def _():
    with Plain() as plain:
        same(plain.subscribe("$iothub/twin/res/#", 2), [1])
        same(plain.subscribe("$iothub/methods/POST/#", 0), [0])


for what, topic, qos in [
    ("a message of QoS 2", f"devices/{DEVICE}/messages/events/", 2),
    ("a message on a topic the hub does not know", "some/where", 1),
    ("telemetry in another device's name", "devices/other/messages/events/", 1),
]:

    @check(f"{what} ends the connection")
    def _(topic=topic, qos=qos):
        with Plain() as plain:
            plain.publish(topic, "x", qos)
            until(lambda: plain.ended, "the hub hangs up")


@check("a retained message is taken as telemetry and not retained")
def _():
    with Plain() as plain:
        plain.subscribe("$iothub/twin/res/#")
        plain.publish(f"devices/{DEVICE}/messages/events/", "x", retain=True)
        plain.publish("$iothub/twin/GET/?$rid=behind")
        same(plain.next()[0], "$iothub/twin/res/200/?$rid=behind")
        same(plain.ended, False)


@check("a will is taken")
def _():
    with Plain(will=(f"devices/{DEVICE}/messages/events/", "gone", 1)):
        pass


@check("bytes that are no TLS, no HTTP and no MQTT end their own connection only")
def _():
    context = ssl.create_default_context()
    noise = bytes(range(256)) * 64
    for port in (443, 8883):
        with socket.create_connection((hub.host, port), WAIT_SECONDS_MAX) as raw:
            raw.settimeout(WAIT_SECONDS_MAX)
            hung_up(raw, noise)
        with socket.create_connection((hub.host, port), WAIT_SECONDS_MAX) as raw:
            hung_up(context.wrap_socket(raw, server_hostname=hub.host), noise)
    with Plain():
        same(registry.get_twin(DEVICE).device_id, DEVICE)


done()
