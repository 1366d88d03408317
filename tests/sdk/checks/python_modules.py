"""azure-iot-hub (Python): module identities, module twins, queries over them."""

from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import QuerySpecification, Twin, TwinProperties

from check import Hub, check, done, group, own_key, refused, same, true, until

DEVICE = "pm-device"

hub = Hub()
registry = IoTHubRegistryManager(hub.owner)
service = IoTHubRegistryManager(hub.service)
registry.create_device_with_sas(DEVICE, own_key(1), own_key(2), "enabled")


def create(module_id):
    return registry.create_module_with_sas(DEVICE, module_id, "", own_key(3), own_key(4))


def rows(text, page=None, token=None):
    return service.query_iot_hub(QuerySpecification(query=text), token, page)


group("python service, modules")


@check("a module is created with the given keys")
def _():
    module = create("thermostat")
    same((module.device_id, module.module_id), (DEVICE, "thermostat"))
    keys = module.authentication.symmetric_key
    same((keys.primary_key, keys.secondary_key), (own_key(3), own_key(4)))
    true(module.etag and module.generation_id, "etag and generation id are there")
    same(registry.get_module(DEVICE, "thermostat").etag, module.etag, "etag of a read")


@check("a module without keys gets generated ones")
def _():
    module = registry.create_module_with_sas(DEVICE, "generated", "", None, None)
    true(module.authentication.symmetric_key.primary_key, "the key is there")


@check("a second module of the same id is refused")
def _():
    refused(lambda: create("thermostat"), 409, "ModuleAlreadyExistsOnDevice")


@check("a module id that starts with a dollar is refused")
def _():
    refused(lambda: create("$own"), 400)


@check("a module of a device that does not exist is refused as unauthorized")
def _():
    refused(lambda: registry.create_module_with_sas("pm-absent", "m", "", own_key(3), own_key(4)), 401)


@check("the list holds the modules of the device")
def _():
    same(sorted(module.module_id for module in registry.get_modules(DEVICE)), ["generated", "thermostat"])


@check("an update with the current etag is taken, with a stale one refused")
def _():
    stale = registry.get_module(DEVICE, "thermostat").etag
    after = registry.update_module_with_sas(DEVICE, "thermostat", "me", stale, own_key(5), own_key(6))
    same((after.managed_by, after.authentication.symmetric_key.primary_key), ("me", own_key(5)))
    true(after.etag != stale, "the etag is new")
    refused(
        lambda: registry.update_module_with_sas(DEVICE, "thermostat", "", stale, own_key(3), own_key(4)),
        412,
        "PreconditionFailed",
    )


@check("a deleted module is gone with its twin")
def _():
    etag = create("short").etag
    registry.delete_module(DEVICE, "short", etag)
    refused(lambda: service.get_module_twin(DEVICE, "short"), 404)
    same([module.module_id for module in registry.get_modules(DEVICE) if module.module_id == "short"], [])


group("python service, module twins")


@check("a new module twin names device and module, and starts where a device's does")
def _():
    twin = service.get_module_twin(DEVICE, "thermostat")
    same((twin.device_id, twin.module_id, twin.etag, twin.version), (DEVICE, "thermostat", "AAAAAAAAAAE=", 2))
    same((twin.tags, twin.capabilities), (None, None))
    same(twin.device_etag, registry.get_module(DEVICE, "thermostat").etag, "deviceEtag")


@check("an update merges, with etag, stale etag and *")
def _():
    twin = service.get_module_twin(DEVICE, "thermostat")
    patch = Twin(tags={"room": "a"}, properties=TwinProperties(desired={"interval": 30}))
    after = service.update_module_twin(DEVICE, "thermostat", patch, twin.etag)
    same((after.tags, after.properties.desired["interval"], after.etag), ({"room": "a"}, 30, "AAAAAAAAAAI="))
    refused(
        lambda: service.update_module_twin(DEVICE, "thermostat", Twin(tags={"room": "b"}), twin.etag),
        412,
        "PreconditionFailed",
    )
    same(service.update_module_twin(DEVICE, "thermostat", Twin(tags={"room": "c"}), "*").tags, {"room": "c"})
    same(service.get_twin(DEVICE).etag, "AAAAAAAAAAE=", "etag of the device's own twin")


@check("a replacement holds what was sent and nothing else")
def _():
    twin = service.get_module_twin(DEVICE, "thermostat")
    sent = Twin(tags={"room": "d"}, properties=TwinProperties(desired={"unit": "c"}))
    after = service.replace_module_twin(DEVICE, "thermostat", sent, twin.etag)
    same(after.tags, {"room": "d"})
    same({key for key in after.properties.desired if not key.startswith("$")}, {"unit"})


@check("the twin of a module that does not exist is not found")
def _():
    refused(lambda: service.get_module_twin(DEVICE, "absent"), 404)


@check("devices.modules finds module twins, devices does not")
def _():
    service.update_module_twin(DEVICE, "generated", Twin(tags={"room": "d"}))
    wanted = [(DEVICE, "generated"), (DEVICE, "thermostat")]
    found = until(
        lambda: sorted((twin.device_id, twin.module_id) for twin in rows("SELECT * FROM devices.modules WHERE tags.room = 'd'").items)
        == wanted,
        "both modules are found",
    )
    true(found, "found")
    same(rows("SELECT * FROM devices WHERE tags.room = 'd'").items, [])
    result = rows("SELECT moduleId, properties.desired.unit AS unit FROM devices.modules WHERE moduleId = 'thermostat'")
    same((result.type, [row.additional_properties for row in result.items]), ("Raw", [{"unit": "c"}]))


@check("module twins come in pages")
def _():
    first = rows("SELECT * FROM devices.modules WHERE tags.room = 'd'", 1)
    second = rows("SELECT * FROM devices.modules WHERE tags.room = 'd'", 1, first.continuation_token)
    same((len(first.items), len(second.items), first.type), (1, 1, "Twin"))
    true(first.items[0].module_id != second.items[0].module_id, "the pages differ")


@check("deleting the device deletes its modules")
def _():
    registry.create_device_with_sas("pm-short", own_key(1), own_key(2), "enabled")
    registry.create_module_with_sas("pm-short", "m", "", own_key(3), own_key(4))
    registry.delete_device("pm-short")
    refused(lambda: service.get_module_twin("pm-short", "m"), 404)
    registry.create_device_with_sas("pm-short", own_key(1), own_key(2), "enabled")
    same(registry.get_modules("pm-short"), [])


done()
