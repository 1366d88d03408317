'use strict';
// azure-iothub (Node): identities, twins, modules, queries, refusals.

const { Registry } = require('azure-iothub');
const { check, group, hub, keys, main, ok, ownKey, refused, same, settings, until } = require('./check');

const registry = Registry.fromConnectionString(hub.owner);
const service = Registry.fromConnectionString(hub.service);

const create = async (deviceId) =>
  (await registry.create({ deviceId, status: 'enabled', authentication: keys() })).responseBody;
const twinOf = async (deviceId) => (await service.getTwin(deviceId)).responseBody;
const moduleTwinOf = async (deviceId, moduleId) => (await service.getModuleTwin(deviceId, moduleId)).responseBody;
const write = async (deviceId, patch, etag = '*') => (await service.updateTwin(deviceId, patch, etag)).responseBody;

/** Every page of a query, as twins. */
async function pagesOf(text, size) {
  const query = service.createQuery(text, size);
  const pages = [];
  do pages.push((await query.nextAsTwin()).result);
  while (query.hasMoreResults);
  return pages;
}

const namesOf = async (text, size) => (await pagesOf(text, size)).flat().map((twin) => twin.deviceId).sort();

group('node service, identities');

check('a device is created with the given keys', async () => {
  const device = await create('ns-given');
  same([device.deviceId, device.status, device.connectionState], ['ns-given', 'enabled', 'Disconnected']);
  same(device.authentication.symmetricKey, keys().symmetricKey);
  same((await registry.get('ns-given')).responseBody.etag, device.etag, 'etag of a read');
});

check('a device without keys gets generated ones', async () => {
  const { authentication } = (await registry.create({ deviceId: 'ns-generated' })).responseBody;
  same(authentication.type, 'sas');
  ok(authentication.symmetricKey.primaryKey && authentication.symmetricKey.secondaryKey, 'two keys are there');
});

check('an id with signs that need escaping is itself', async () => {
  const odd = "ns-:.+%_#*?!(),=@;$'";
  await create(odd);
  same((await registry.get(odd)).responseBody.deviceId, odd);
  same((await twinOf(odd)).deviceId, odd);
  await registry.delete(odd);
});

check('a second device of the same id is refused', () => refused(() => create('ns-given'), 'DeviceAlreadyExistsError'));

check('a device that does not exist is not found', async () => {
  await refused(() => registry.get('ns-absent'), 'DeviceNotFoundError');
  await refused(() => registry.delete('ns-absent'), 'DeviceNotFoundError');
  await refused(() => twinOf('ns-absent'), 'DeviceNotFoundError');
});

check('an update is taken whatever the etag, as this SDK sends *', async () => {
  const { responseBody } = await registry.update({ deviceId: 'ns-given', status: 'disabled', authentication: keys(3, 4) });
  same([responseBody.status, responseBody.authentication.symmetricKey.primaryKey], ['disabled', ownKey(3)]);
});

check('an update of a device that does not exist is not found', () =>
  refused(() => registry.update({ deviceId: 'ns-absent', authentication: keys() }), 'DeviceNotFoundError'));

check('the list holds the devices', async () => {
  const names = (await registry.list()).responseBody.map((device) => device.deviceId);
  ok(names.includes('ns-given') && names.includes('ns-generated'), `both are there: ${names}`);
});

check('a deleted device is gone', async () => {
  await create('ns-short');
  await registry.delete('ns-short');
  await refused(() => registry.get('ns-short'), 'DeviceNotFoundError');
});

group('node service, twins');

check('a new twin has the first etag and versions', async () => {
  await create('ns-twin');
  const twin = await twinOf('ns-twin');
  same([twin.etag, twin.version, twin.tags], ['AAAAAAAAAAE=', 2, {}]);
  same([twin.properties.desired.$version, twin.properties.reported.$version], [1, 1]);
});

check('a twin updates itself with its etag, and is refused once that is stale', async () => {
  const [mine, other] = [await twinOf('ns-twin'), await twinOf('ns-twin')];
  const after = (await mine.update({ tags: { plant: 'a' }, properties: { desired: { level: 1 } } })).result;
  same([after.tags, after.etag, after.properties.desired.$version], [{ plant: 'a' }, 'AAAAAAAAAAI=', 2]);
  await refused(() => other.update({ tags: { plant: 'b' } }), 'InvalidEtagError');
  same((await twinOf('ns-twin')).tags, { plant: 'a' });
});

check('an update with * or the current etag is taken, with a stale one refused', async () => {
  const first = await write('ns-twin', { tags: { plant: 'c' } });
  const second = await write('ns-twin', { tags: { plant: 'd' } }, first.etag);
  same(second.tags, { plant: 'd' });
  await refused(() => write('ns-twin', { tags: { plant: 'e' } }, first.etag), 'InvalidEtagError');
});

check('an update merges: null removes, an array is replaced whole', async () => {
  await write('ns-twin', { properties: { desired: { a: { b: 1, c: 2 }, list: [1, 2, 3] } } });
  const twin = await write('ns-twin', { properties: { desired: { a: { b: null }, list: ['z'], level: null } } });
  same(settings(twin.properties.desired), { a: { c: 2 }, list: ['z'] });
});

check('what breaks a rule is refused', async () => {
  for (const tags of [{ 'a.b': 1 }, { $a: 1 }, { a: 2 ** 52 }, { a: 'x'.repeat(4097) }, { a: [null] }]) {
    await refused(() => write('ns-twin', { tags }), 'ArgumentError');
  }
});

group('node service, modules');

check('a module is created, read, listed, updated and removed', async () => {
  await create('ns-edge');
  const { responseBody } = await registry.addModule({ deviceId: 'ns-edge', moduleId: 'm1' });
  ok(responseBody.authentication.symmetricKey.primaryKey, 'it gets a key');
  await registry.addModule({ deviceId: 'ns-edge', moduleId: 'm2', authentication: keys() });
  same((await registry.getModule('ns-edge', 'm2')).responseBody.authentication.symmetricKey, keys().symmetricKey);
  const names = (await registry.getModulesOnDevice('ns-edge')).responseBody.map((module) => module.moduleId);
  same(names.sort(), ['m1', 'm2']);
  const module = (await registry.getModule('ns-edge', 'm1')).responseBody;
  const updated = (await registry.updateModule({ ...module, managedBy: 'me' })).responseBody;
  same(updated.managedBy, 'me');
  await refused(() => registry.updateModule({ ...module, managedBy: 'you' }), 'InvalidEtagError');
  same((await registry.updateModule({ ...module, managedBy: 'you' }, true)).responseBody.managedBy, 'you');
  await registry.removeModule('ns-edge', 'm1');
  const left = (await registry.getModulesOnDevice('ns-edge')).responseBody.map((entry) => entry.moduleId);
  same(left, ['m2']);
});

check('a second module of the same id is refused', () =>
  refused(() => registry.addModule({ deviceId: 'ns-edge', moduleId: 'm2' }), 'DeviceAlreadyExistsError'));

check('a module twin updates itself, and is refused once its etag is stale', async () => {
  const [mine, other] = [await moduleTwinOf('ns-edge', 'm2'), await moduleTwinOf('ns-edge', 'm2')];
  same([mine.deviceId, mine.moduleId, mine.etag], ['ns-edge', 'm2', 'AAAAAAAAAAE=']);
  const after = (await mine.update({ tags: { room: 'a' }, properties: { desired: { interval: 1 } } })).result;
  same([after.tags, after.properties.desired.interval], [{ room: 'a' }, 1]);
  await refused(() => other.update({ tags: { room: 'b' } }), 'InvalidEtagError');
  const forced = await service.updateModuleTwin('ns-edge', 'm2', { tags: { room: 'c' } }, '*');
  same(forced.responseBody.tags, { room: 'c' });
});

group('node service, queries');

const SITES = [0, 1, 2, 3, 4, 5, 6].map((number) => `ns-q${number}`);

check('pages follow one another until there are no more', async () => {
  for (const [number, name] of SITES.entries()) {
    await create(name);
    await write(name, { tags: { nodeQuery: number % 2 ? 'north' : 'south' }, properties: { desired: { level: number } } });
  }
  const text = 'SELECT * FROM devices WHERE IS_DEFINED(tags.nodeQuery)';
  await until(async () => (await namesOf(text)).length === 7, 'all are found');
  const pages = await pagesOf(text, 3);
  ok(pages.length >= 3 && pages.every((page) => page.length <= 3), 'pages keep their size');
  same(pages.flat().map((twin) => twin.deviceId).sort(), SITES);
});

check('a row of SELECT * is a twin that can update itself', async () => {
  const [[twin]] = await pagesOf("SELECT * FROM devices WHERE deviceId = 'ns-q1'");
  const after = (await twin.update({ tags: { touched: true } })).result;
  same([after.etag, after.tags.touched], ['AAAAAAAAAAM=', true]);
});

check('raw rows come by next, page by page', async () => {
  const query = service.createQuery('SELECT deviceId, tags.nodeQuery AS site FROM devices WHERE IS_DEFINED(tags.nodeQuery)', 4);
  const first = await query.next();
  same([first.message.headers['x-ms-item-type'], first.result.length], ['Raw', 4]);
  const second = await query.next(first.message.headers['x-ms-continuation']);
  same(second.message.headers['x-ms-continuation'], undefined, 'token of the last page');
  const rows = [...first.result, ...second.result].sort((a, b) => a.deviceId.localeCompare(b.deviceId));
  same(rows, SITES.map((deviceId, number) => ({ deviceId, site: number % 2 ? 'north' : 'south' })));
});

check('counts and groups', async () => {
  const text = 'SELECT tags.nodeQuery AS site, COUNT() AS n FROM devices WHERE IS_DEFINED(tags.nodeQuery) GROUP BY tags.nodeQuery';
  const { result } = await service.createQuery(text).next();
  same(result.sort((a, b) => a.n - b.n), [{ site: 'north', n: 3 }, { site: 'south', n: 4 }]);
});

check('module twins are found in devices.modules', async () => {
  const [page] = await pagesOf("SELECT * FROM devices.modules WHERE tags.room = 'c'");
  same(page.map((twin) => [twin.deviceId, twin.moduleId]), [['ns-edge', 'm2']]);
});

check('a query that is none is refused', async () => {
  await refused(() => service.createQuery('SELECT FROM devices').next(), 'ArgumentError');
});

group('node service, rights');

const withKey = (connection, key) => connection.replace(/;SharedAccessKey=.*/, `;SharedAccessKey=${key}`);

check('a wrong key is refused', async () => {
  const wrong = Registry.fromConnectionString(withKey(hub.owner, ownKey(9)));
  await refused(() => wrong.getTwin('ns-twin'), 'UnauthorizedError');
  await refused(() => wrong.get('ns-twin'), 'UnauthorizedError');
  await refused(() => wrong.createQuery('SELECT * FROM devices').next(), 'UnauthorizedError');
});

check('the service policy may not touch identities', async () => {
  await refused(() => service.create({ deviceId: 'ns-forbidden' }), 'UnauthorizedError');
  await refused(() => service.list(), 'UnauthorizedError');
});

main();
