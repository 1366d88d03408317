'use strict';
// Brings twins to what a JSON file wants, by Microsoft's Node service SDK: get, compare, update with the etag.
//
//     sdk.js HUB_JSON WANTED_JSON IN_FLIGHT
//
// Prints `ready UNIX_TIME CPU_SECONDS` when everything is imported and read, so that start-up can be told from work.

const fs = require('fs');
const { Registry } = require('azure-iothub');

// A write that somebody else's write came before is tried again from a new read, as geminid does.
const ATTEMPTS_MAX = 5;

const [hubJson, wantedJson, inFlight] = process.argv.slice(2);
const registry = Registry.fromConnectionString(JSON.parse(fs.readFileSync(hubJson, 'utf8')).ownerConnectionString);
const wanted = JSON.parse(fs.readFileSync(wantedJson, 'utf8'));

const isObject = (value) => value !== null && typeof value === 'object' && !Array.isArray(value);

/** What of `want` is not in `have`, as a merge patch; nothing when all of it is. */
function missing(want, have) {
  let patch;
  for (const [key, value] of Object.entries(want)) {
    const inner = isObject(value) && isObject(have[key]) ? missing(value, have[key]) : have[key] === value ? undefined : value;
    if (inner !== undefined) (patch ??= {})[key] = inner;
  }
  return patch;
}

async function bring({ deviceId, tags, desired }) {
  for (let attempt = 1; ; attempt += 1) {
    const { responseBody: twin } = await registry.getTwin(deviceId);
    const patch = {};
    const lacksTags = missing(tags, twin.tags ?? {});
    const lacksDesired = missing(desired, twin.properties.desired);
    if (lacksTags) patch.tags = lacksTags;
    if (lacksDesired) patch.properties = { desired: lacksDesired };
    if (!lacksTags && !lacksDesired) return;
    try {
      await registry.updateTwin(deviceId, patch, twin.etag);
      return;
    } catch (error) {
      if (error.name !== 'InvalidEtagError' || attempt === ATTEMPTS_MAX) throw error;
    }
  }
}

async function main() {
  let next = 0;
  const worker = async () => {
    while (next < wanted.length) {
      next += 1;
      await bring(wanted[next - 1]);
    }
  };
  const { user, system } = process.cpuUsage();
  console.log('ready', Date.now() / 1e3, (user + system) / 1e6);
  await Promise.all(Array.from({ length: Number(inFlight) }, worker));
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
