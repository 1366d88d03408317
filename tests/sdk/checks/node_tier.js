'use strict';
// azure-iothub (Node): a hub of tier S1, whose throttles are met: late first, then 429.

const { JobClient, Registry } = require('azure-iothub');
const { check, group, hub, keys, main, ok, refused, same, until } = require('./check');

// S1 with one unit: registry operations 100 a minute, of which each identity of a bulk operation is one; one active job.
const REGISTRY_BURST = 100;

const registry = Registry.fromConnectionString(hub.owner);
const jobs = JobClient.fromConnectionString(hub.owner);

const devices = (prefix, count) =>
  Array.from({ length: count }, (_, number) => ({ deviceId: `${prefix}-${number}`, authentication: keys() }));

group('node service, tiers');

check('far beyond the rate a request is refused as throttled', async () => {
  hub.restart('--tier', 'S1');
  same((await registry.addDevices(devices('nt-first', REGISTRY_BURST))).responseBody.isSuccessful, true);
  const error = await refused(() => registry.addDevices(devices('nt-refused', 50)), 'ThrottlingError');
  same(error.response.statusCode, 429);
  same([error.response.headers['iothub-errorcode'], error.response.headers['retry-after']], ['ThrottlingBacklogTimeout', undefined]);
});

check('a little beyond the rate a request comes late, and is carried out', async () => {
  const start = Date.now();
  same((await registry.addDevices(devices('nt-late', 10))).responseBody.isSuccessful, true);
  ok(Date.now() - start > 1000, 'it had to wait for its turn');
  await refused(() => registry.get('nt-refused-0'), 'DeviceNotFoundError');
  same((await registry.get('nt-late-9')).responseBody.deviceId, 'nt-late-9');
});

check('the tier has one active job, and one that waits is active', async () => {
  const later = new Date(Date.now() + 3_600_000);
  const schedule = (name) => jobs.scheduleTwinUpdate(name, 'tags.none = 1', { etag: '*', tags: { a: 1 } }, later, 60);
  await schedule('nt-one');
  const error = await refused(() => schedule('nt-two'), 'ThrottlingError');
  same(error.response.headers['iothub-errorcode'], 'ThrottlingMaxActiveJobCountExceeded');
  await jobs.cancelJob('nt-one');
});

check('without a tier there is no throttle', async () => {
  hub.restart();
  // The SDK keeps connections that ended with the hub's process.
  await until(() => registry.get('nt-late-9').catch(() => false), 'the hub is back');
  for (const [prefix, count] of [['nt-first', REGISTRY_BURST], ['nt-late', 10]]) {
    same((await registry.removeDevices(devices(prefix, count), true)).responseBody.isSuccessful, true);
  }
});

main();
