"""azure-iot-hub (Python): device identities, device twins, queries, refusals."""

from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import QuerySpecification, Twin, TwinProperties

from check import Hub, check, done, group, own_key, refused, same, true, until

hub = Hub()
registry = IoTHubRegistryManager(hub.owner)
service = IoTHubRegistryManager(hub.service)


def create(device_id):
    return registry.create_device_with_sas(device_id, own_key(1), own_key(2), "enabled")


def desired(**values):
    return Twin(properties=TwinProperties(desired=values))


def settings(section):
    """A section without what the hub adds to it."""
    return {key: value for key, value in section.items() if not key.startswith("$")}


def rows(text, page=None, token=None):
    return service.query_iot_hub(QuerySpecification(query=text), token, page)


group("python service, identities")


@check("a device is created with the given keys")
def _():
    device = create("ps-given")
    same((device.device_id, device.status, device.connection_state), ("ps-given", "enabled", "Disconnected"))
    keys = device.authentication.symmetric_key
    same((device.authentication.type, keys.primary_key, keys.secondary_key), ("sas", own_key(1), own_key(2)))
    same(device.capabilities.iot_edge, False)
    true(device.etag and device.generation_id, "etag and generation id are there")
    same(registry.get_device("ps-given").etag, device.etag, "etag of a read")


@check("a device without keys gets generated ones")
def _():
    device = registry.create_device_with_sas("ps-generated", None, None, "enabled")
    keys = device.authentication.symmetric_key
    true(keys.primary_key and keys.secondary_key and keys.primary_key != keys.secondary_key, "two keys are there")


@check("a device is created disabled, with its reason")
def _():
    registry.create_device_with_sas("ps-disabled", own_key(1), own_key(2), "disabled", status_reason="bench")
    device = registry.get_device("ps-disabled")
    same((device.status, device.status_reason), ("disabled", "bench"))
    twin = service.get_twin("ps-disabled")
    same((twin.status, twin.status_reason), ("disabled", "bench"))


@check("a device authenticates by thumbprints")
def _():
    registry.create_device_with_x509("ps-x509", "A" * 40, "B" * 40, "enabled")
    device = registry.get_device("ps-x509")
    same(device.authentication.type, "selfSigned")
    same(device.authentication.x509_thumbprint.primary_thumbprint, "A" * 40)
    twin = service.get_twin("ps-x509")
    same((twin.authentication_type, twin.x509_thumbprint.secondary_thumbprint), ("selfSigned", "B" * 40))


@check("a device authenticates by an authority's certificate")
def _():
    device = registry.create_device_with_certificate_authority("ps-authority", "enabled")
    same(device.authentication.type, "certificateAuthority")


@check("an id with every allowed sign is itself")
def _():
    odd = "ps-A9-:.+%_#*?!(),=@;$'"
    create(odd)
    same(registry.get_device(odd).device_id, odd)
    same(service.get_twin(odd).device_id, odd)
    same([row.device_id for row in rows(f"SELECT * FROM devices WHERE deviceId = '{odd[:-1]}\\''").items], [odd])
    registry.delete_device(odd)


@check("an id with a sign that is not allowed is refused")
def _():
    refused(lambda: create("ps with blanks"), 400)


@check("a second device of the same id is refused")
def _():
    refused(lambda: create("ps-given"), 409, "DeviceAlreadyExists")


@check("a device that does not exist is not found")
def _():
    refused(lambda: registry.get_device("ps-absent"), 404, "DeviceNotFound")
    refused(lambda: registry.delete_device("ps-absent"), 404, "DeviceNotFound")


@check("an update with the current etag is taken and renews the etag")
def _():
    before = registry.get_device("ps-given")
    after = registry.update_device_with_sas("ps-given", before.etag, own_key(3), own_key(4), "disabled")
    same((after.status, after.authentication.symmetric_key.primary_key), ("disabled", own_key(3)))
    true(after.etag != before.etag, "the etag is new")
    same(after.generation_id, before.generation_id, "generation id")
    same(service.get_twin("ps-given").device_etag, after.etag, "deviceEtag of the twin")


@check("an update with a stale etag is refused")
def _():
    stale = registry.get_device("ps-given").etag
    registry.update_device_with_sas("ps-given", stale, own_key(3), own_key(4), "enabled")
    refused(
        lambda: registry.update_device_with_sas("ps-given", stale, own_key(5), own_key(6), "disabled"),
        412,
        "PreconditionFailed",
    )
    same(registry.get_device("ps-given").status, "enabled", "status")


@check("an update with * needs no etag, and needs the device")
def _():
    same(registry.update_device_with_sas("ps-given", "*", own_key(1), own_key(2), "enabled").status, "enabled")
    refused(lambda: registry.update_device_with_sas("ps-absent", "*", own_key(1), own_key(2), "enabled"), 404)


@check("keys that are no keys are refused")
def _():
    refused(lambda: registry.create_device_with_sas("ps-bad", "no base64!", own_key(1), "enabled"), 400)
    refused(lambda: registry.create_device_with_sas("ps-bad", own_key(1), None, "enabled"), 400)


@check("the list holds the devices, and no more than asked for")
def _():
    names = {device.device_id for device in registry.get_devices()}
    true({"ps-given", "ps-generated", "ps-disabled"} <= names, f"all are there: {sorted(names)}")
    same(len(registry.get_devices(2)), 2, "length with top 2")


@check("a delete with a stale etag is refused, with the current one taken")
def _():
    stale = create("ps-delete").etag
    current = registry.update_device_with_sas("ps-delete", stale, own_key(1), own_key(2), "disabled").etag
    refused(lambda: registry.delete_device("ps-delete", stale), 412, "PreconditionFailed")
    registry.delete_device("ps-delete", current)
    refused(lambda: registry.get_device("ps-delete"), 404, "DeviceNotFound")
    refused(lambda: service.get_twin("ps-delete"), 404, "DeviceNotFound")


@check("a device created anew starts with a new twin")
def _():
    first = create("ps-again")
    service.update_twin("ps-again", desired(level=7))
    registry.delete_device("ps-again")
    second = create("ps-again")
    twin = service.get_twin("ps-again")
    same((twin.etag, twin.version, twin.properties.desired["$version"]), ("AAAAAAAAAAE=", 2, 1))
    same(settings(twin.properties.desired), {})
    true(second.generation_id != first.generation_id, "the generation id is new")


group("python service, twins")


@check("a new twin has the first etag and versions, and no tags")
def _():
    create("ps-twin")
    twin = service.get_twin("ps-twin")
    same((twin.etag, twin.version, twin.tags), ("AAAAAAAAAAE=", 2, None))
    same((twin.properties.desired["$version"], twin.properties.reported["$version"]), (1, 1))
    same((twin.status, twin.connection_state, twin.cloud_to_device_message_count), ("enabled", "Disconnected", 0))
    same(twin.capabilities.iot_edge, False)
    same(twin.additional_properties, {"modelId": ""}, "columns the SDK does not know")


@check("a tag moves etag and version, a desired value its $version too")
def _():
    twin = service.update_twin("ps-twin", Twin(tags={"plant": "a"}))
    same((twin.etag, twin.version, twin.properties.desired["$version"]), ("AAAAAAAAAAI=", 3, 1))
    twin = service.update_twin("ps-twin", desired(level=1))
    same((twin.etag, twin.version, twin.properties.desired["$version"]), ("AAAAAAAAAAM=", 4, 2))
    both = Twin(tags={"plant": "b"}, properties=TwinProperties(desired={"level": 2}))
    twin = service.update_twin("ps-twin", both)
    same((twin.etag, twin.version, twin.properties.desired["$version"]), ("AAAAAAAAAAQ=", 5, 3))
    twin = service.update_twin("ps-twin", both)
    same((twin.etag, twin.version, twin.properties.desired["$version"]), ("AAAAAAAAAAU=", 6, 4), "the same again")


@check("an update with the current etag is taken, with a stale one refused")
def _():
    etag = service.get_twin("ps-twin").etag
    service.update_twin("ps-twin", Twin(tags={"plant": "c"}), etag)
    error = refused(lambda: service.update_twin("ps-twin", Twin(tags={"plant": "d"}), etag), 412, "PreconditionFailed")
    true("ErrorCode:PreconditionFailed" in error.response.json()["Message"], "the message names the code")
    same(service.get_twin("ps-twin").tags, {"plant": "c"})
    refused(lambda: service.replace_twin("ps-twin", Twin(tags={}), etag), 412, "PreconditionFailed")


@check("an update with * is taken whatever the etag")
def _():
    same(service.update_twin("ps-twin", Twin(tags={"plant": "e"}), "*").tags, {"plant": "e"})


@check("an update merges: null removes, an array is replaced whole")
def _():
    create("ps-merge")
    service.update_twin("ps-merge", Twin(tags={"a": {"b": 1, "c": 2}, "list": [1, 2, 3], "x": True}))
    twin = service.update_twin("ps-merge", Twin(tags={"a": {"b": None, "d": None}, "list": ["z"], "none": None}))
    same(twin.tags, {"a": {"c": 2}, "list": ["z"], "x": True})
    twin = service.update_twin("ps-merge", Twin(tags={"a": {"c": None}, "new": {"k": None}}))
    same(twin.tags, {"a": {}, "list": ["z"], "x": True, "new": {}})


@check("numbers come back as they were written")
def _():
    values = {"int": 4503599627370495, "low": -4503599627370496, "float": 1.5, "whole": 2.0, "text": "é\U0001f600"}
    twin = service.update_twin("ps-merge", desired(**values))
    same(settings(twin.properties.desired), values)
    true(isinstance(twin.properties.desired["whole"], float), "2.0 stays a float")


@check("$metadata mirrors the desired values and tells their versions")
def _():
    create("ps-meta")
    service.update_twin("ps-meta", desired(a={"b": 1}, keep=True))
    twin = service.update_twin("ps-meta", desired(a={"b": 2}))
    metadata = twin.properties.desired["$metadata"]
    same(metadata["$lastUpdatedVersion"], 3)
    same((metadata["a"]["$lastUpdatedVersion"], metadata["a"]["b"]["$lastUpdatedVersion"]), (3, 3))
    same(metadata["keep"]["$lastUpdatedVersion"], 2)
    true(metadata["a"]["b"]["$lastUpdated"].endswith("Z"), "times are in UTC")


@check("a replaced twin holds what was sent and nothing else")
def _():
    create("ps-replace")
    service.update_twin("ps-replace", Twin(tags={"old": 1}, properties=TwinProperties(desired={"old": 1, "same": 1})))
    etag = service.get_twin("ps-replace").etag
    sent = Twin(tags={"new": 1}, properties=TwinProperties(desired={"same": 1}))
    twin = service.replace_twin("ps-replace", sent, etag)
    same((twin.tags, settings(twin.properties.desired)), ({"new": 1}, {"same": 1}))
    same((twin.etag, twin.properties.desired["$version"]), ("AAAAAAAAAAM=", 3))


@check("a replacement with a stale etag is refused, and nothing is written")
def _():
    before = service.get_twin("ps-replace")
    sent = Twin(tags={"late": 1}, properties=TwinProperties(desired={}))
    refused(lambda: service.replace_twin("ps-replace", sent, "AAAAAAAAAAE="), 412, "PreconditionFailed")
    after = service.get_twin("ps-replace")
    same((after.etag, after.tags), (before.etag, before.tags))


@check("a null in a replacement is refused")
def _():
    refused(lambda: service.replace_twin("ps-replace", Twin(tags={"gone": None}), "*"), 400, "ArgumentInvalid")


@check("a whole twin sent back changes only what the service owns")
def _():
    twin = service.get_twin("ps-replace")
    twin.tags = {"new": 2}
    twin.properties.reported["forged"] = True
    after = service.update_twin("ps-replace", twin, twin.etag)
    same((after.tags, settings(after.properties.reported)), ({"new": 2}, {}))


for what, tags in [
    ("a name with a dot", {"a.b": 1}),
    ("a name with a dollar", {"$a": 1}),
    ("a name with a blank", {"a b": 1}),
    ("an integer out of range", {"a": 4503599627370496}),
    ("a text over 4 KB", {"a": "x" * 4097}),
    ("more than 8 KB", {f"k{i}": "x" * 4000 for i in range(3)}),
    ("a null in an array", {"a": [1, None]}),
    ("nesting beyond ten", {"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {"i": {"j": {"k": {"l": 1}}}}}}}}}}}}),
]:

    @check(f"{what} is refused in tags, and nothing is written")
    def _(tags=tags):
        before = service.get_twin("ps-meta").etag
        refused(lambda: service.update_twin("ps-meta", Twin(tags=tags)), 400)
        same(service.get_twin("ps-meta").etag, before, "etag")


@check("32 KB of desired values are taken, more are refused")
def _():
    create("ps-size")
    part = {f"k{i}": "x" * 4000 for i in range(8)}
    service.update_twin("ps-size", desired(**part))
    refused(lambda: service.update_twin("ps-size", desired(more="x" * 1000)), 400)


@check("a twin that does not exist is not found")
def _():
    refused(lambda: service.get_twin("ps-absent"), 404, "DeviceNotFound")
    refused(lambda: service.update_twin("ps-absent", Twin(tags={"a": 1})), 404, "DeviceNotFound")
    refused(lambda: service.replace_twin("ps-absent", Twin(tags={"a": 1})), 404, "DeviceNotFound")


group("python service, queries")

SITES = {f"ps-q{number}": ("north" if number % 2 else "south", number) for number in range(7)}


@check("pages follow one another until there is no token")
def _():
    for name, (site, level) in SITES.items():
        create(name)
        service.update_twin(
            name, Twin(tags={"query": site}, properties=TwinProperties(desired={"level": level, "deep": {"on": True}}))
        )
    seen, token, pages = [], None, 0
    until(lambda: len(rows("SELECT * FROM devices WHERE IS_DEFINED(tags.query)").items) == 7, "all are found")
    while True:
        result = rows("SELECT * FROM devices WHERE IS_DEFINED(tags.query)", 3, token)
        same(result.type, "Twin", "item type")
        true(len(result.items) <= 3, "a page keeps its size")
        seen += [twin.device_id for twin in result.items]
        pages += 1
        token = result.continuation_token
        if not token:
            break
    same((sorted(seen), pages >= 3), (sorted(SITES), True))


@check("a token survives writes between pages")
def _():
    first = rows("SELECT * FROM devices WHERE IS_DEFINED(tags.query)", 4)
    service.update_twin(first.items[0].device_id, Twin(tags={"touched": True}))
    second = rows("SELECT * FROM devices WHERE IS_DEFINED(tags.query)", 4, first.continuation_token)
    same(sorted(twin.device_id for twin in first.items + second.items), sorted(SITES))


@check("a row of SELECT * is the twin as a read gives it")
def _():
    row = rows("SELECT * FROM devices WHERE deviceId = 'ps-q1'").items[0]
    same(row.serialize(keep_readonly=True), service.get_twin("ps-q1").serialize(keep_readonly=True))


@check("a projection gives raw rows with canonical names, and leaves out what is missing")
def _():
    result = rows("SELECT DeviceId, tags.query AS site, properties.desired.level, tags.absent FROM devices WHERE deviceId = 'ps-q3'")
    same(result.type, "Raw", "item type")
    row = result.items[0]
    same((row.device_id, row.additional_properties), ("ps-q3", {"site": "north", "level": 3}))


@check("COUNT counts, GROUP BY groups")
def _():
    result = rows("SELECT COUNT() AS n FROM devices WHERE IS_DEFINED(tags.query)")
    same((result.type, [row.additional_properties for row in result.items]), ("Raw", [{"n": 7}]))
    text = "SELECT tags.query AS site, COUNT() AS n, SUM(properties.desired.level) AS total FROM devices "
    text += "WHERE IS_DEFINED(tags.query) GROUP BY tags.query"
    groups = sorted((row.additional_properties for row in rows(text).items), key=lambda row: row["site"])
    same(groups, [{"site": "north", "n": 3, "total": 9}, {"site": "south", "n": 4, "total": 12}])


@check("TOP limits the rows")
def _():
    same(len(rows("SELECT TOP 2 * FROM devices WHERE IS_DEFINED(tags.query)").items), 2)


for condition, found in [
    ("tags.query = 'north'", [1, 3, 5]),
    ("tags.query != 'north'", [0, 2, 4, 6]),
    ("tags.query <> 'north' AND properties.desired.level > 2", [4, 6]),
    ("tags.query = 'north' OR properties.desired.level = 0", [0, 1, 3, 5]),
    ("IS_DEFINED(tags.query) AND NOT tags.query = 'north'", [0, 2, 4, 6]),
    ("tags.[[query]] = 'north' AND properties.desired.level IN [3, 4]", [3]),
    ("IS_DEFINED(tags.query) AND properties.desired.level NIN [0, 1, 2, 3]", [4, 5, 6]),
    ("IS_DEFINED(tags.query) AND properties.desired.level * 2 >= 10", [5, 6]),
    ("STARTSWITH(deviceId, 'ps-q') AND properties.desired.deep.on = true AND properties.desired.level <= 1", [0, 1]),
    ("devices.tags.query = 'north' and devices.properties.desired.level < 3", [1]),
    ("tags.query = 'NORTH'", []),
    ("tags.query = 'north' AND properties.desired.level = '3'", []),
    ("IS_DEFINED(tags.query) AND properties.desired.$version = 2", [0, 1, 2, 3, 4, 5, 6]),
    ("IS_DEFINED(tags.query) AND status = 'enabled' AND connectionState = 'Disconnected' AND capabilities.iotEdge = false", [0, 1, 2, 3, 4, 5, 6]),
    ("tags.query = 'north' AND tags.absent != 'x'", []),
]:

    @check(f"WHERE {condition}")
    def _(condition=condition, found=found):
        result = rows(f"SELECT * FROM devices WHERE {condition}")
        same(sorted(twin.device_id for twin in result.items), [f"ps-q{number}" for number in found])


for text in [
    "SELECT * FROM devices WHERE",
    "SELECT * FROM elsewhere",
    "SELECT * FROM devices ORDER BY deviceId",
    "SELECT * FROM devices WHERE STARTS_WITH(deviceId, 'a')",
    "UPDATE devices",
    "",
]:

    @check(f"refused: {text or 'an empty query'}")
    def _(text=text):
        refused(lambda: rows(text), 400)


@check("an invented continuation token is refused")
def _():
    refused(lambda: rows("SELECT * FROM devices", 1, "invented"), 400)


group("python service, addresses")


@check("a host name with the port is the same hub")
def _():
    with_port = hub.owner.replace(f"HostName={hub.host};", f"HostName={hub.host}:443;")
    same(IoTHubRegistryManager(with_port).get_twin("ps-twin").device_id, "ps-twin")


group("python service, rights")


def with_key(connection, key):
    return connection[: connection.rindex(";SharedAccessKey=")] + ";SharedAccessKey=" + key


@check("a wrong key is refused")
def _():
    wrong = IoTHubRegistryManager(with_key(hub.owner, own_key(9)))
    error = refused(lambda: wrong.get_twin("ps-twin"), 401, "IotHubUnauthorizedAccess")
    true("Message" in error.response.json(), "the body has a message")
    refused(lambda: wrong.get_device("ps-twin"), 401)
    refused(lambda: wrong.query_iot_hub(QuerySpecification(query="SELECT * FROM devices")), 401)


@check("an unknown policy is refused")
def _():
    unknown = IoTHubRegistryManager(hub.owner.replace("=iothubowner", "=nobody"))
    refused(lambda: unknown.get_twin("ps-twin"), 401)


@check("the service policy reads twins and may not touch identities")
def _():
    same(service.get_twin("ps-twin").device_id, "ps-twin")
    refused(lambda: service.get_device("ps-twin"), 401)
    refused(lambda: service.create_device_with_sas("ps-forbidden", own_key(1), own_key(2), "enabled"), 401)
    refused(lambda: service.delete_device("ps-twin"), 401)


@check("a device's key opens nothing of the service")
def _():
    policy = "HostName={};SharedAccessKeyName=ps-twin;SharedAccessKey={}".format(hub.host, own_key(1))
    refused(lambda: IoTHubRegistryManager(policy).get_twin("ps-twin"), 401)


done()
