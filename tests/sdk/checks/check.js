'use strict';
// What the Node checks share: running one check, comparing, the hub under test.

const { execFileSync } = require('child_process');
const fs = require('fs');
const path = require('path');
const { isDeepStrictEqual, inspect } = require('util');

// One check may take so long; an SDK that waits for an answer that never comes must not hold the rest up.
const CHECK_MS_MAX = 40_000;
// How long a condition may take to come true.
const WAIT_MS_MAX = 20_000;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

let groupName = '';
const planned = [];

/** Names the checks that follow. */
function group(name) {
  planned.push({ group: name });
}

/** Plans a check; `main` runs them in their order. */
function check(name, body) {
  planned.push({ name, body });
}

async function run({ name, body }) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no end within ${CHECK_MS_MAX / 1000} s`)), CHECK_MS_MAX);
  });
  try {
    await Promise.race([body(), late]);
    console.log(`passed  ${groupName}: ${name}`);
  } catch (error) {
    console.error(error);
    const text = `${error.name}: ${error.message}`.split(/\s+/).join(' ').slice(0, 300);
    console.log(`FAILED  ${groupName}: ${name}: ${text}`);
  } finally {
    clearTimeout(timer);
  }
}

/** Runs what was planned and ends the program: sockets of an SDK that still wait do not keep it. */
async function main() {
  for (const entry of planned) {
    if (entry.group) groupName = entry.group;
    else await run(entry);
  }
  process.exit(0);
}

// An SDK may throw where no check stands; a check that waits for the consequence fails by itself.
process.on('uncaughtException', (error) => console.error('uncaught', error));
process.on('unhandledRejection', (error) => console.error('unhandled', error));

function same(actual, expected, what = 'value') {
  if (isDeepStrictEqual(actual, expected)) return;
  const show = (value) => inspect(value, { depth: 6, breakLength: Infinity });
  throw new Error(`${what}: expected ${show(expected)}, got ${show(actual)}`);
}

function ok(condition, what) {
  if (!condition) throw new Error(what);
}

/** The call must fail with an error of this class name; the error is handed back. */
async function refused(call, name) {
  let answer;
  try {
    answer = await call();
  } catch (error) {
    same(error.name, name, `class of the error (${error.message})`);
    return error;
  }
  throw new Error(`expected ${name}, got an answer: ${inspect(answer && answer.responseBody)}`);
}

/** Waits until `condition()` gives something true, and returns it. */
async function until(condition, what) {
  const deadline = Date.now() + WAIT_MS_MAX;
  for (;;) {
    const result = await condition();
    if (result) return result;
    if (Date.now() > deadline) throw new Error(`not within ${WAIT_MS_MAX / 1000} s: ${what}`);
    await pause(20);
  }
}

/** A queue of what an SDK hands over: `next()` waits for the oldest entry. */
class Inbox {
  constructor() {
    this.entries = [];
  }

  put(entry) {
    this.entries.push(entry);
  }

  async next() {
    await until(() => this.entries.length > 0, 'something arrives');
    return this.entries.shift();
  }
}

/** The hub under test, as its hub.json describes it. */
const described = JSON.parse(fs.readFileSync(path.join(process.env.SDK_RUN, 'state', 'hub.json'), 'utf8'));
const hub = {
  host: described.hostName,
  owner: described.ownerConnectionString,
  service: described.serviceConnectionString,
  /** The connection string of a device or of one of its modules. */
  device(deviceId, key, moduleId) {
    const text = described.deviceConnectionStringTemplate.replace('{device_id}', deviceId).replace('{key}', key);
    return moduleId ? text.replace(';SharedAccessKey=', `;ModuleId=${moduleId};SharedAccessKey=`) : text;
  },
  /** Ends the hub's process as a signal does and starts another one, with these flags, on the same state folder. */
  restart(...flags) {
    execFileSync(process.env.SDK_HUB, ['restart', ...flags], { stdio: 'inherit' });
  },
};

/** A key as a caller may choose it: base64 of 32 bytes. */
const ownKey = (number) => Buffer.alloc(32, number).toString('base64');

/** The authentication of an identity with two chosen keys. */
const keys = (primary = 1, secondary = 2) => ({
  type: 'sas',
  symmetricKey: { primaryKey: ownKey(primary), secondaryKey: ownKey(secondary) },
});

/** A section of a twin without what the hub adds to it. */
const settings = (section) =>
  Object.fromEntries(Object.entries(section).filter(([key]) => !key.startsWith('$')));

module.exports = { Inbox, check, group, hub, keys, main, ok, ownKey, pause, refused, same, settings, until };
