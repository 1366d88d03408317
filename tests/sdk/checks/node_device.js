'use strict';
// azure-iot-device over azure-iot-device-mqtt (Node): twins, notifications, methods, telemetry, modules, sessions.

const { Client: ServiceClient, Registry } = require('azure-iothub');
const { Client, Message, ModuleClient } = require('azure-iot-device');
const { Mqtt, MqttWs } = require('azure-iot-device-mqtt');
const { Inbox, check, group, hub, keys, main, ok, ownKey, pause, refused, same, settings, until } = require('./check');

// A token that ends after so many seconds, renewed so long before its end.
const TOKEN_SECONDS = 6;
const TOKEN_MARGIN_SECONDS = 4;

const registry = Registry.fromConnectionString(hub.owner);
const service = Registry.fromConnectionString(hub.service);
const caller = ServiceClient.fromConnectionString(hub.service);

const create = (deviceId, status = 'enabled') => registry.create({ deviceId, status, authentication: keys() });
const twinOf = async (deviceId) => (await service.getTwin(deviceId)).responseBody;
const clientOf = (deviceId, transport = Mqtt, key = ownKey(1)) =>
  Client.fromConnectionString(hub.device(deviceId, key), transport);

/** Writes desired values and returns what the device must be told. */
async function write(deviceId, desired) {
  const { responseBody } = await service.updateTwin(deviceId, { properties: { desired } }, '*');
  return { ...desired, $version: responseBody.properties.desired.$version };
}

const call = async (deviceId, methodName, payload, responseTimeoutInSeconds = 10) =>
  (await caller.invokeDeviceMethod(deviceId, { methodName, payload, responseTimeoutInSeconds })).result;

const report = (twin, patch) =>
  new Promise((resolve, reject) =>
    twin.properties.reported.update(patch, (error) => (error ? reject(error) : resolve()))
  );

/** The twin of a client, and a box of what it is told after its first look. */
async function watched(client) {
  const [twin, inbox] = [await client.getTwin(), new Inbox()];
  // The SDK hands over what it holds already as soon as somebody listens.
  twin.on('properties.desired', (delta) => inbox.put(structuredClone(delta)));
  await inbox.next();
  // It subscribes behind that, and says nothing of it; a method's subscription ends after it.
  client.onDeviceMethod('ping', (request, response) => response.send(200, { echo: request.payload }));
  return { twin, inbox };
}

/** What every way of connecting must be able to do. */
async function exercised(client, deviceId) {
  await client.open();
  try {
    const { twin, inbox } = await watched(client);
    await until(() => call(deviceId, 'ping', 1).catch(() => false), 'the device answers methods');
    await report(twin, { way: 'in' });
    same((await twinOf(deviceId)).properties.reported.way, 'in');
    const sent = await write(deviceId, { step: 1 });
    same(await inbox.next(), sent);
    same(await call(deviceId, 'ping', { now: true }), { status: 200, payload: { echo: { now: true } } });
    await client.sendEvent(new Message('telemetry'));
    same((await twinOf(deviceId)).connectionState, 'Connected');
  } finally {
    await client.close();
  }
  await until(async () => (await twinOf(deviceId)).connectionState === 'Disconnected', 'the twin shows the end');
}

group('node device, connecting');

check('over TLS: twin, report, notification, method, telemetry', async () => {
  await create('nd-tls');
  await exercised(clientOf('nd-tls'), 'nd-tls');
});

check('in a websocket: twin, report, notification, method, telemetry', async () => {
  await create('nd-ws');
  await exercised(clientOf('nd-ws', MqttWs), 'nd-ws');
});

check('by a host name with the port', async () => {
  const text = hub.device('nd-tls', ownKey(1)).replace(`HostName=${hub.host};`, `HostName=${hub.host}:8883;`);
  const client = Client.fromConnectionString(text, Mqtt);
  await client.open();
  ok((await client.getTwin()).properties.desired.$version, 'the twin is there');
  await client.close();
});

check('with the secondary key', async () => {
  const client = clientOf('nd-tls', Mqtt, ownKey(2));
  await client.open();
  await client.close();
});

const notLetIn = (client) => refused(() => client.open(), 'UnauthorizedError');

check('a wrong key is refused as unauthorized', async () => {
  await notLetIn(clientOf('nd-tls', Mqtt, ownKey(9)));
  await notLetIn(clientOf('nd-tls', MqttWs, ownKey(9)));
});

check('a device that does not exist is refused as unauthorized', () => notLetIn(clientOf('nd-absent')));

check('a disabled device is refused as unauthorized', async () => {
  await create('nd-disabled', 'disabled');
  await notLetIn(clientOf('nd-disabled'));
});

group('node device, twins');

let client;
let twin;
let inbox;

check('the twin holds desired and reported with their versions, and no tags or metadata', async () => {
  await create('nd-twin');
  await service.updateTwin('nd-twin', { tags: { hidden: 1 }, properties: { desired: { a: { b: [1, 'x'] } } } }, '*');
  client = clientOf('nd-twin');
  await client.open();
  ({ twin, inbox } = await watched(client));
  const { reported, desired } = JSON.parse(JSON.stringify(twin.properties));
  same([desired, reported], [{ a: { b: [1, 'x'] }, $version: 2 }, { $version: 1 }]);
  await until(() => call('nd-twin', 'ping', 1).catch(() => false), 'the device answers methods');
});

check('reported values merge, null removes, and only the versions move', async () => {
  const before = await twinOf('nd-twin');
  await report(twin, { state: { fan: 'on', rpm: 900 }, list: [1, 2] });
  await report(twin, { state: { rpm: null }, list: [3] });
  const after = await twinOf('nd-twin');
  same(settings(after.properties.reported), { state: { fan: 'on' }, list: [3] });
  same([after.properties.reported.$version, after.version, after.etag], [3, before.version + 2, before.etag]);
});

check('a report that breaks a rule is refused, and the connection goes on', async () => {
  for (const patch of [{ 'a.b': 1 }, { a: 'x'.repeat(5000) }, { n: 2 ** 60 }]) {
    await report(twin, patch).then(
      () => { throw new Error(`taken: ${Object.keys(patch)}`); },
      (error) => ok(error.message, 'the SDK is told why')
    );
  }
  same((await twinOf('nd-twin')).properties.reported.$version, 3);
  await report(twin, { good: true });
});

check('desired changes arrive in order, each with its version', async () => {
  const sent = [];
  for (let step = 0; step < 20; step += 1) sent.push(await write('nd-twin', { step }));
  for (const delta of sent) same(await inbox.next(), delta);
});

check('a removed value arrives as null, the same value again too', async () => {
  const removed = await write('nd-twin', { step: null });
  same(await inbox.next(), removed);
  const first = await write('nd-twin', { again: 1 });
  const second = await write('nd-twin', { again: 1 });
  same([await inbox.next(), await inbox.next()], [first, second]);
});

group('node device, methods and telemetry');

check('methods carry any payload both ways, and the status of the device', async () => {
  for (const payload of [{ a: [1, null] }, 'text', 5, [true], {}]) {
    same(await call('nd-twin', 'ping', payload), { status: 200, payload: { echo: payload } });
  }
  client.onDeviceMethod('fails', (request, response) => response.send(500, { why: 'broken' }));
  same(await call('nd-twin', 'fails', {}), { status: 500, payload: { why: 'broken' } });
});

check('a method for a device that is away is refused at once', async () => {
  // A hub wraps the reason once more here than elsewhere, so that this SDK does not name it; it hands the body on.
  const error = await refused(() => call('nd-tls', 'ping', {}), 'Error');
  same(JSON.parse(JSON.parse(error.responseBody).Message).errorCode, 404103);
});

check('telemetry with properties is taken', async () => {
  const message = new Message(JSON.stringify({ t: 21.5 }));
  message.contentType = 'application/json';
  message.contentEncoding = 'utf-8';
  message.properties.add('level', 'hïgh & low');
  await client.sendEvent(message);
  await Promise.all(Array.from({ length: 20 }, (_, number) => client.sendEvent(new Message(`plain ${number}`))));
});

check('two devices are connected at once, and counted', async () => {
  const second = clientOf('nd-tls');
  await second.open();
  same([(await twinOf('nd-tls')).connectionState, (await twinOf('nd-twin')).connectionState], ['Connected', 'Connected']);
  await second.close();
});

group('node device, sessions');

check('after a restart of the hub the device is told again', async () => {
  const before = (await twinOf('nd-twin')).etag;
  hub.restart();
  await until(async () => (await twinOf('nd-twin').catch(() => ({}))).connectionState === 'Connected', 'it is back');
  same((await twinOf('nd-twin')).etag, before);
  const sent = await write('nd-twin', { after: 'restart' });
  same(await inbox.next(), sent);
  same((await call('nd-twin', 'ping', 'again')).payload, { echo: 'again' });
  await report(twin, { after: 'restart' });
  await client.close();
});

check('after a renewed token the device is told again, over TLS and in a websocket', async () => {
  for (const [deviceId, transport] of [['nd-tls', Mqtt], ['nd-ws', MqttWs]]) {
    const renewing = clientOf(deviceId, transport);
    await renewing.setOptions({
      tokenRenewal: { tokenValidTimeInSeconds: TOKEN_SECONDS, tokenRenewalMarginInSeconds: TOKEN_MARGIN_SECONDS },
    });
    await renewing.open();
    const { inbox: told } = await watched(renewing);
    await pause((TOKEN_SECONDS + 1) * 1000);
    await until(async () => (await twinOf(deviceId)).connectionState === 'Connected', 'it is connected');
    const sent = await write(deviceId, { renewed: Date.now() });
    same(await told.next(), sent);
    await until(() => call(deviceId, 'ping', 1).catch(() => false), 'the device answers methods');
    await renewing.close();
  }
});

group('node device, modules');

check('a module has its own twin, notifications, methods and telemetry', async () => {
  await create('nd-edge');
  await registry.addModule({ deviceId: 'nd-edge', moduleId: 'm', authentication: keys(3, 4) });
  const module = ModuleClient.fromConnectionString(hub.device('nd-edge', ownKey(3), 'm'), Mqtt);
  await module.open();
  const [own, told] = [await module.getTwin(), new Inbox()];
  own.on('properties.desired', (delta) => told.put(structuredClone(delta)));
  same(await told.next(), { $version: 1 });
  module.onMethod('who', (request, response) => response.send(200, { module: 'm' }));
  const who = async () =>
    (await caller.invokeDeviceMethod('nd-edge', 'm', { methodName: 'who', payload: {}, responseTimeoutInSeconds: 10 })).result;
  await until(() => who().catch(() => false), 'the module answers methods');
  same(await who(), { status: 200, payload: { module: 'm' } });
  await report(own, { from: 'module' });
  const desired = { interval: 5 };
  await service.updateModuleTwin('nd-edge', 'm', { properties: { desired } }, '*');
  same(await told.next(), { interval: 5, $version: 2 });
  await module.sendEvent(new Message('from the module'));
  const seen = (await service.getModuleTwin('nd-edge', 'm')).responseBody;
  same([settings(seen.properties.reported), seen.connectionState], [{ from: 'module' }, 'Connected']);
  await module.close();
});

check('a wrong key of a module is refused as unauthorized', () =>
  notLetIn(ModuleClient.fromConnectionString(hub.device('nd-edge', ownKey(9), 'm'), Mqtt)));

main();
