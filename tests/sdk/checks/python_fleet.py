"""azure-iot-hub (Python): bulk, statistics, configurations, scheduled jobs, and what the hub does not serve."""

import datetime

from azure.iot.device import IoTHubDeviceClient, MethodResponse
from azure.iot.hub import (
    DigitalTwinClient,
    IoTHubConfigurationManager,
    IoTHubHttpRuntimeManager,
    IoTHubJobManager,
    IoTHubRegistryManager,
)
from azure.iot.hub.models import (
    AuthenticationMechanism,
    CloudToDeviceMethod,
    Configuration,
    ConfigurationContent,
    ConfigurationMetrics,
    ConfigurationQueriesTestInput,
    ExportImportDevice,
    JobRequest,
    PropertyContainer,
    QuerySpecification,
    SymmetricKey,
    Twin,
    TwinProperties,
)

from check import Hub, check, done, group, own_key, refused, same, true, until

hub = Hub()
registry = IoTHubRegistryManager(hub.owner)
service = IoTHubRegistryManager(hub.service)


def keys():
    return AuthenticationMechanism(
        type="sas", symmetric_key=SymmetricKey(primary_key=own_key(1), secondary_key=own_key(2))
    )


def bulk(*entries):
    return registry.bulk_create_or_update_devices(list(entries))


def codes(result):
    return [(error.device_id, error.error_code) for error in result.errors or []]


group("python service, bulk")


@check("devices are created with tags and desired values")
def _():
    result = bulk(*[
        ExportImportDevice(
            id=f"pb-{number}",
            import_mode="create",
            status="enabled",
            authentication=keys(),
            tags={"bulk": number},
            properties=PropertyContainer(desired={"level": number}),
        )
        for number in range(3)
    ])
    same((result.is_successful, codes(result)), (True, []))
    twin = service.get_twin("pb-2")
    same((twin.tags, twin.properties.desired["level"]), ({"bulk": 2}, 2))
    same((twin.etag, twin.version, twin.properties.desired["$version"]), ("AAAAAAAAAAE=", 2, 1))
    same(registry.get_device("pb-1").authentication.symmetric_key.primary_key, own_key(1))


@check("one bad entry is told and does not stop the others")
def _():
    result = bulk(
        ExportImportDevice(id="pb-0", import_mode="create", status="enabled", authentication=keys()),
        ExportImportDevice(id="pb-3", import_mode="create", status="enabled", authentication=keys()),
    )
    same(result.is_successful, False)
    same([device for device, _ in codes(result)], ["pb-0"])
    same(codes(result)[0][1], "DeviceAlreadyExists")
    same(registry.get_device("pb-3").device_id, "pb-3")


@check("update and updateIfMatchETag change identities")
def _():
    stale = registry.get_device("pb-0").etag
    result = bulk(ExportImportDevice(id="pb-0", import_mode="Update", status="disabled", authentication=keys()))
    same(result.is_successful, True)
    same(registry.get_device("pb-0").status, "disabled")
    result = bulk(
        ExportImportDevice(
            id="pb-0", import_mode="updateIfMatchETag", e_tag=stale, status="enabled", authentication=keys()
        )
    )
    same((result.is_successful, codes(result)), (False, [("pb-0", "PreconditionFailed")]))
    same(registry.get_device("pb-0").status, "disabled")


@check("updateTwin and updateTwinIfMatchETag change twins")
def _():
    same(bulk(ExportImportDevice(id="pb-1", import_mode="updateTwin", tags={"bulk": 10})).is_successful, True)
    twin = service.get_twin("pb-1")
    same(twin.tags["bulk"], 10)
    matching = ExportImportDevice(id="pb-1", import_mode="updateTwinIfMatchETag", twin_etag=twin.etag, tags={"bulk": 11})
    same(bulk(matching).is_successful, True)
    same(bulk(matching).is_successful, False)
    same(service.get_twin("pb-1").tags["bulk"], 11)


@check("modules are created in bulk")
def _():
    entry = ExportImportDevice(
        id="pb-1", module_id="m", import_mode="create", status="enabled", authentication=keys(), tags={"bulk": 1}
    )
    same(bulk(entry).is_successful, True)
    same(service.get_module_twin("pb-1", "m").tags, {"bulk": 1})


@check("an id given twice is refused")
def _():
    entry = ExportImportDevice(id="pb-9", import_mode="create", status="enabled", authentication=keys())
    result = bulk(entry, entry)
    same(result.is_successful, None, "isSuccessful of an error body")


@check("more than 100 entries are refused")
def _():
    entries = [
        ExportImportDevice(id=f"pb-many-{number}", import_mode="create", status="enabled", authentication=keys())
        for number in range(101)
    ]
    refused(lambda: bulk(*entries), 413, "TooManyDevices")
    refused(lambda: registry.get_device("pb-many-0"), 404)


@check("devices are deleted in bulk")
def _():
    stale = "c3RhbGU="
    result = bulk(ExportImportDevice(id="pb-2", import_mode="deleteIfMatchETag", e_tag=stale))
    same((result.is_successful, codes(result)), (False, [("pb-2", "PreconditionFailed")]))
    same(bulk(ExportImportDevice(id="pb-2", import_mode="delete")).is_successful, True)
    refused(lambda: registry.get_device("pb-2"), 404)
    same(bulk(ExportImportDevice(id="pb-2", import_mode="delete")).is_successful, False)


group("python service, statistics")


@check("the registry counts its devices by status")
def _():
    before = registry.get_device_registry_statistics()
    registry.create_device_with_sas("pf-counted", own_key(1), own_key(2), "disabled")
    after = registry.get_device_registry_statistics()
    same(after.total_device_count, before.total_device_count + 1)
    same(after.disabled_device_count, before.disabled_device_count + 1)
    same(after.enabled_device_count, before.enabled_device_count)
    same(after.total_device_count, len(registry.get_devices()))


@check("the service counts its connected devices")
def _():
    same(registry.get_service_statistics().connected_device_count, 0)


group("python service, configurations")

configurations = IoTHubConfigurationManager(hub.owner)


def configuration(name, priority, condition, **values):
    return Configuration(
        id=name,
        priority=priority,
        labels={"team": "sdk"},
        target_condition=condition,
        content=ConfigurationContent(device_content={f"properties.desired.{key}": value for key, value in values.items()}),
        metrics=ConfigurationMetrics(queries={"hot": "SELECT deviceId FROM devices WHERE tags.adm = 'hot'"}),
    )


@check("a configuration is created, read and listed")
def _():
    # A hub evaluates soon after a change of a configuration and else every five minutes: what it is to find comes first.
    registry.create_device_with_sas("pf-target", own_key(1), own_key(2), "enabled")
    service.update_twin("pf-target", Twin(tags={"adm": "hot"}))
    created = configurations.create_configuration(configuration("pc-low", 1, "IS_DEFINED(tags.adm)", zone={"a": 1, "b": 1}))
    same((created.id, created.priority, created.labels), ("pc-low", 1, {"team": "sdk"}))
    read = configurations.get_configuration("pc-low")
    same((read.etag, read.target_condition), (created.etag, "IS_DEFINED(tags.adm)"))
    same(read.content.device_content, {"properties.desired.zone": {"a": 1, "b": 1}})
    same([entry.id for entry in configurations.get_configurations()], ["pc-low"])


@check("a second configuration of the same id is refused")
def _():
    refused(lambda: configurations.create_configuration(configuration("pc-low", 1, "*", x=1)), 409)


@check("a configuration is written to the devices it targets")
def _():
    zone = lambda: service.get_twin("pf-target").properties.desired.get("zone")
    until(lambda: zone() == {"a": 1, "b": 1}, "the configuration reaches the twin")
    twin = service.get_twin("pf-target")
    same(twin.properties.desired["$metadata"]["zone"]["a"]["$lastUpdatedBy"], "pc-low")
    same(twin.etag, "AAAAAAAAAAM=")


@check("the higher priority takes a path that both set")
def _():
    configurations.create_configuration(configuration("pc-high", 5, "tags.adm = 'hot'", zone={"a": 2}))
    zone = lambda: service.get_twin("pf-target").properties.desired.get("zone")
    until(lambda: zone() == {"a": 2, "b": 1}, "the merge reaches the twin")


@check("metrics count, and queries find what a configuration targets")
def _():
    counts = lambda: configurations.get_configuration("pc-low").system_metrics.results
    until(lambda: (counts() or {}).get("targetedCount") == 1, "targetedCount is 1")
    until(lambda: (configurations.get_configuration("pc-low").metrics.results or {}).get("hot") == 1, "own metric")
    text = "SELECT deviceId FROM devices WHERE configurations.[[pc-high]].status = 'Applied'"
    until(
        lambda: [row.device_id for row in service.query_iot_hub(QuerySpecification(query=text)).items] == ["pf-target"],
        "the status is queryable",
    )


@check("an update needs the current etag; the content does not change")
def _():
    low = configurations.get_configuration("pc-low")
    stale, low.priority = low.etag, 2
    low.content.device_content = {"properties.desired.zone": {"a": 9}}
    # This manager sends the etag as it is given, and for configurations only a quoted one counts.
    refused(lambda: configurations.update_configuration(low, stale), 409)
    after = configurations.update_configuration(low, f'"{stale}"')
    same((after.priority, after.content.device_content), (2, {"properties.desired.zone": {"a": 1, "b": 1}}))
    refused(lambda: configurations.update_configuration(low, f'"{stale}"'), 412, "PreconditionFailed")
    refused(lambda: configurations.delete_configuration("pc-low", f'"{stale}"'), 412, "PreconditionFailed")


@check("queries of a configuration are tested")
def _():
    good = ConfigurationQueriesTestInput(target_condition="tags.a = 1", custom_metric_queries={"m": "SELECT * FROM devices"})
    answer = configurations.test_configuration_queries(good)
    same((answer.target_condition_error, answer.custom_metric_query_errors), (None, {}))
    bad = ConfigurationQueriesTestInput(target_condition="tags.a =", custom_metric_queries={"m": "SELECT"})
    answer = configurations.test_configuration_queries(bad)
    true(answer.target_condition_error and answer.custom_metric_query_errors["m"], "both errors are told")


@check("a bad target condition is refused")
def _():
    refused(lambda: configurations.create_configuration(configuration("pc-bad", 1, "tags.a =", x=1)), 400)


@check("a deleted configuration leaves what it wrote")
def _():
    configurations.delete_configuration("pc-high")
    configurations.delete_configuration("pc-low", f'"{configurations.get_configuration("pc-low").etag}"')
    refused(lambda: configurations.get_configuration("pc-low"), 404)
    same("zone" in service.get_twin("pf-target").properties.desired, True)


group("python service, jobs")

jobs = IoTHubJobManager(hub.owner)


def twin_job(job_id, condition, tags, start_time=None):
    return JobRequest(
        job_id=job_id,
        type="scheduleUpdateTwin",
        update_twin=Twin(etag="*", tags=tags),
        query_condition=condition,
        start_time=start_time,
        max_execution_time_in_seconds=60,
    )


def in_an_hour():
    return datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)


def finished(job_id):
    return until(
        lambda: (lambda job: job if job.status in ("completed", "failed") else None)(jobs.get_scheduled_job(job_id)),
        f"{job_id} ends",
    )


@check("a twin job changes every twin it finds")
def _():
    for name in ("pj-1", "pj-2"):
        registry.create_device_with_sas(name, own_key(1), own_key(2), "enabled")
        service.update_twin(name, Twin(tags={"job": {"wave": 1, "old": True}}))
    until(
        lambda: len(service.query_iot_hub(QuerySpecification(query="SELECT * FROM devices WHERE tags.job.wave = 1")).items) == 2,
        "both are found",
    )
    created = jobs.create_scheduled_job("pj-job", twin_job("pj-job", "tags.job.wave = 1", {"job": {"wave": 2, "old": None}}))
    same((created.job_id, created.type), ("pj-job", "scheduleUpdateTwin"))
    done_job = finished("pj-job")
    counts = done_job.device_job_statistics
    same((done_job.status, counts.device_count, counts.succeeded_count, counts.failed_count), ("completed", 2, 2, 0))
    for name in ("pj-1", "pj-2"):
        same(service.get_twin(name).tags, {"job": {"wave": 2}})


@check("a method job calls every device it finds, and its rows tell what each answered")
def _():
    def answer(request):
        device.send_method_response(MethodResponse.create_from_method_request(request, 201, {"got": request.payload}))

    device = IoTHubDeviceClient.create_from_connection_string(hub.device("pj-1", own_key(1)))
    device.on_method_request_received = answer
    device.connect()
    request = JobRequest(
        job_id="pj-method",
        type="scheduleDeviceMethod",
        cloud_to_device_method=CloudToDeviceMethod(method_name="wave", payload=7, response_timeout_in_seconds=10),
        query_condition="deviceId IN ['pj-1', 'pj-2']",
        max_execution_time_in_seconds=60,
    )
    same(jobs.create_scheduled_job("pj-method", request).type, "scheduleDeviceMethod")
    job = finished("pj-method")
    counts = job.device_job_statistics
    same((job.status, counts.succeeded_count, counts.failed_count), ("completed", 1, 1))
    text = "SELECT * FROM devices.jobs WHERE devices.jobs.jobId = 'pj-method'"
    rows = service.query_iot_hub(QuerySpecification(query=text)).items
    told = {row.device_id: row.additional_properties for row in rows}
    same(told["pj-1"]["outcome"]["deviceMethodResponse"], {"status": 201, "payload": {"got": 7}})
    same((told["pj-2"]["jobType"], told["pj-2"]["error"]["code"]), ("scheduleDeviceMethod", "DeviceNotOnline"))
    device.shutdown()


@check("a job id is used once")
def _():
    refused(lambda: jobs.create_scheduled_job("pj-job", twin_job("pj-job", "tags.a = 1", {"a": 1})), 409, "JobAlreadyExists")


@check("a job in the future waits and can be cancelled")
def _():
    created = jobs.create_scheduled_job("pj-later", twin_job("pj-later", "tags.a = 1", {"a": 1}, in_an_hour()))
    true(created.status in ("queued", "scheduled"), f"it waits: {created.status}")
    jobs.cancel_scheduled_job("pj-later")
    until(lambda: jobs.get_scheduled_job("pj-later").status == "cancelled", "it is cancelled")


group("python service, not served")


@check("import and export jobs, digital twins and feedback are refused, never pretended")
def _():
    refused(lambda: jobs.get_import_export_jobs(), 501)
    refused(lambda: DigitalTwinClient(hub.owner).get_digital_twin("pf-target"), 501)
    refused(lambda: IoTHubHttpRuntimeManager(hub.owner).receive_feedback_notification(), 501)


done()
