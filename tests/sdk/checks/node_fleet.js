'use strict';
// azure-iothub (Node): bulk, statistics, configurations, scheduled jobs.

const { JobClient, Registry } = require('azure-iothub');
const { check, group, hub, keys, main, ok, refused, same, settings, until } = require('./check');

const registry = Registry.fromConnectionString(hub.owner);
const service = Registry.fromConnectionString(hub.service);
const jobs = JobClient.fromConnectionString(hub.owner);

const identity = async (deviceId) => (await registry.get(deviceId)).responseBody;
const twinOf = async (deviceId) => (await service.getTwin(deviceId)).responseBody;

group('node service, bulk');

check('devices are added, with keys given and generated', async () => {
  const { responseBody } = await registry.addDevices([
    { deviceId: 'nb-1', status: 'enabled', authentication: keys() },
    { deviceId: 'nb-2', status: 'enabled' },
  ]);
  same([responseBody.isSuccessful, responseBody.errors], [true, []]);
  same((await identity('nb-1')).authentication.symmetricKey, keys().symmetricKey);
  ok((await identity('nb-2')).authentication.symmetricKey.primaryKey, 'a key was generated');
});

check('one bad entry fails the call and not the others', async () => {
  const added = registry.addDevices([
    { deviceId: 'nb-1', authentication: keys() },
    { deviceId: 'nb-3', authentication: keys() },
  ]);
  await refused(() => added, 'ArgumentError');
  same((await identity('nb-3')).deviceId, 'nb-3');
});

check('devices are updated, forced and by etag', async () => {
  const stale = await identity('nb-1');
  const forced = await registry.updateDevices([{ deviceId: 'nb-1', status: 'disabled', authentication: keys() }], true);
  same(forced.responseBody.isSuccessful, true);
  same((await identity('nb-1')).status, 'disabled');
  await refused(() => registry.updateDevices([{ ...stale, status: 'enabled' }], false), 'ArgumentError');
  const current = await identity('nb-1');
  await registry.updateDevices([{ ...current, status: 'enabled' }], false);
  same((await identity('nb-1')).status, 'enabled');
});

check('devices are removed', async () => {
  const { responseBody } = await registry.removeDevices([{ deviceId: 'nb-2' }], true);
  same(responseBody.isSuccessful, true);
  await refused(() => registry.get('nb-2'), 'DeviceNotFoundError');
});

group('node service, statistics');

check('the registry counts its devices by status', async () => {
  const { responseBody } = await registry.getRegistryStatistics();
  const all = (await registry.list()).responseBody;
  same(responseBody.totalDeviceCount, all.length);
  same(responseBody.disabledDeviceCount, all.filter((device) => device.status === 'disabled').length);
});

group('node service, configurations');

const configuration = (id, priority, condition, values) => ({
  id,
  schemaVersion: '1.0',
  labels: { team: 'sdk' },
  content: { deviceContent: values },
  targetCondition: condition,
  priority,
  metrics: { queries: {}, results: {} },
});

check('a configuration is added, read, listed, updated and removed', async () => {
  await registry.addConfiguration(configuration('nc-one', 1, "tags.none = 'x'", { 'properties.desired.zone': 1 }));
  const read = (await registry.getConfiguration('nc-one')).responseBody;
  same([read.priority, read.content.deviceContent], [1, { 'properties.desired.zone': 1 }]);
  same((await registry.getConfigurations()).responseBody.map((entry) => entry.id), ['nc-one']);
  await registry.updateConfiguration({ ...read, priority: 3 });
  same((await registry.getConfiguration('nc-one')).responseBody.priority, 3);
  await refused(() => registry.updateConfiguration({ ...read, priority: 4 }), 'InvalidEtagError');
  await registry.updateConfiguration({ ...read, priority: 4 }, true);
  await registry.removeConfiguration('nc-one');
  same((await registry.getConfigurations()).responseBody, []);
});

check('a configuration is written to the devices it targets', async () => {
  await registry.create({ deviceId: 'nc-device', authentication: keys() });
  await service.updateTwin('nc-device', { tags: { nodeAdm: true } }, '*');
  const values = { 'properties.desired.zone.level': 4 };
  await registry.addConfiguration(configuration('nc-two', 1, 'tags.nodeAdm = true', values));
  await until(async () => (await twinOf('nc-device')).properties.desired.zone, 'the configuration reaches the twin');
  same(settings((await twinOf('nc-device')).properties.desired), { zone: { level: 4 } });
  await registry.removeConfiguration('nc-two');
});

group('node service, jobs');

const jobOf = async (jobId) => (await jobs.getJob(jobId)).jobStatus;
const ended = (jobId) =>
  until(async () => {
    const job = await jobOf(jobId);
    return ['completed', 'failed'].includes(job.status) && job;
  }, `${jobId} ends`);

check('a twin job changes every twin it finds', async () => {
  await registry.addDevices(['nj-1', 'nj-2'].map((deviceId) => ({ deviceId, authentication: keys() })));
  for (const deviceId of ['nj-1', 'nj-2']) await service.updateTwin(deviceId, { tags: { nodeJob: 1 } }, '*');
  const found = async () => (await service.createQuery('SELECT * FROM devices WHERE tags.nodeJob = 1').nextAsTwin()).result;
  await until(async () => (await found()).length === 2, 'both are found');
  const patch = { etag: '*', properties: { desired: { wave: 2 } } };
  await jobs.scheduleTwinUpdate('nj-job', 'tags.nodeJob = 1', patch, new Date(), 60);
  const job = await ended('nj-job');
  same([job.status, job.deviceJobStatistics.succeededCount], ['completed', 2]);
  for (const deviceId of ['nj-1', 'nj-2']) same((await twinOf(deviceId)).properties.desired.wave, 2);
});

check('a method job tells how many devices answered', async () => {
  const method = { methodName: 'wave', payload: 7, responseTimeoutInSeconds: 10 };
  await jobs.scheduleDeviceMethod('nj-method', 'tags.nodeJob = 1', method, new Date(), 60);
  const job = await ended('nj-method');
  same([job.type, job.status, job.deviceJobStatistics.failedCount], ['scheduleDeviceMethod', 'completed', 2]);
});

check('a job in the future can be cancelled', async () => {
  const later = new Date(Date.now() + 3600_000);
  await jobs.scheduleTwinUpdate('nj-later', 'tags.nodeJob = 1', { etag: '*', tags: { a: 1 } }, later, 60);
  await jobs.cancelJob('nj-later');
  await until(async () => (await jobOf('nj-later')).status === 'cancelled', 'it is cancelled');
});

check('jobs are listed', async () => {
  const query = jobs.createQuery('scheduleUpdateTwin', 'completed');
  const { result } = await query.next();
  ok(result.some((job) => job.jobId === 'nj-job'), 'the finished job is in the list');
});

main();
