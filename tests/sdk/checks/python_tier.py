"""azure-iot-hub (Python): a hub of the free tier, whose throttles and limits are met: late first, then 429."""

import datetime
import time

from azure.iot.hub import IoTHubConfigurationManager, IoTHubJobManager, IoTHubRegistryManager
from azure.iot.hub.models import (
    AuthenticationMechanism,
    Configuration,
    ConfigurationContent,
    ExportImportDevice,
    JobRequest,
    SymmetricKey,
    Twin,
)

from check import Hub, check, done, group, own_key, refused, same, true

# Free: registry operations 100 a minute, of which each identity of a bulk operation is one; ten configurations; one
# active job.
REGISTRY_BURST = 100
CONFIGURATIONS_MAX = 10

hub = Hub()
hub.restart("--tier", "F1")
registry = IoTHubRegistryManager(hub.owner)
configurations = IoTHubConfigurationManager(hub.owner)
jobs = IoTHubJobManager(hub.owner)


def bulk(names, mode="create"):
    keys = SymmetricKey(primary_key=own_key(1), secondary_key=own_key(2))
    devices = [
        ExportImportDevice(
            id=name,
            import_mode=mode,
            status="enabled",
            authentication=AuthenticationMechanism(type="sas", symmetric_key=keys),
        )
        for name in names
    ]
    return registry.bulk_create_or_update_devices(devices)


def names(prefix, count):
    return [f"{prefix}-{number}" for number in range(count)]


group("python service, tiers")


@check("far beyond the rate a request is refused with 429 and no Retry-After, and nothing is done")
def _():
    same(bulk(names("pt-first", REGISTRY_BURST)).is_successful, True)
    error = refused(lambda: bulk(names("pt-refused", 50)), 429, "ThrottlingBacklogTimeout")
    same(error.response.headers.get("Retry-After"), None, "Retry-After")
    true("Message" in error.response.json(), "the body has a message")


@check("a little beyond the rate a request comes late, and is carried out")
def _():
    start = time.monotonic()
    same(bulk(names("pt-late", 10)).is_successful, True)
    true(time.monotonic() - start > 1, "it had to wait for its turn")
    refused(lambda: registry.get_device("pt-refused-0"), 404, "DeviceNotFound")
    same(registry.get_device("pt-late-9").device_id, "pt-late-9")


@check("other operations have their own rate")
def _():
    start = time.monotonic()
    same(registry.get_twin("pt-first-0").device_id, "pt-first-0")
    true(time.monotonic() - start < 5, "it did not wait behind the identities")


def configuration(name):
    content = ConfigurationContent(device_content={"properties.desired.x": 1})
    return Configuration(id=name, priority=1, target_condition="deviceId = 'pt-nobody'", content=content)


@check("the free tier has ten configurations")
def _():
    there = len(configurations.get_configurations())
    for number in range(there, CONFIGURATIONS_MAX):
        configurations.create_configuration(configuration(f"pt-{number}"))
    one_more = lambda: configurations.create_configuration(configuration("pt-one-more"))
    refused(one_more, 413, "ConfigurationCountLimitExceeded")


@check("the free tier has one active job, and one that waits is active")
def _():
    later = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)

    def schedule(name):
        request = JobRequest(
            job_id=name,
            type="scheduleUpdateTwin",
            update_twin=Twin(etag="*", tags={"a": 1}),
            query_condition="tags.none = 1",
            start_time=later,
            max_execution_time_in_seconds=60,
        )
        return jobs.create_scheduled_job(name, request)

    schedule("pt-one")
    refused(lambda: schedule("pt-two"), 429, "ThrottlingMaxActiveJobCountExceeded")
    jobs.cancel_scheduled_job("pt-one")
    same(schedule("pt-two").job_id, "pt-two")
    jobs.cancel_scheduled_job("pt-two")


@check("without a tier there is no throttle")
def _():
    hub.restart()
    start = time.monotonic()
    for mode in ("update", "delete"):
        same(bulk(names("pt-first", REGISTRY_BURST), mode).is_successful, True)
    true(time.monotonic() - start < 30, "a hub with the tier would have refused the second")
    bulk(names("pt-late", 10), "delete")
    for entry in configurations.get_configurations():
        configurations.delete_configuration(entry.id)


done()
