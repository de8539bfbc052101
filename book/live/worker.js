// The background worker: it holds the detector, so that the page never waits for a network.
//
//   page -> worker   {type: "start", files}                      files: files.json
//                    {type: "detect", id, x0, settings, ranges}  x0 (3 H H) in [-1, 1]; settings: what differs from the detector's own;
//                                                                ranges: in place of its own
//   worker -> page   {type: "progress", loaded, total}, then {type: "ready", manifest, device, distances, edges, patchEdges}
//                    {type: "found", id, ..}                      score, peak, b, T_hat, d, maps, x0_hat, ts, seconds; by region T and d_p, too
//                    {type: "step", id, i, x0_hat}                after "found": the picture decoded only, i = -1; what each step had in mind, decoded
//                    {type: "error", message}
import {Detector} from "./detector.js";
import {load} from "./networks.js";

let detector, device, wanted = null, busy = false;
const last = {x0: null, seen: null, key: null, answer: null};         // what another weighing of the maps need not compute again
class Superseded extends Error {}

self.onmessage = async ({data: message}) => {
  try {
    if (message.type === "start") await start(message.files);
    else {
      wanted = message;                                               // only the newest request counts
      if (!busy) await work();
    }
  } catch (error) {
    busy = false;
    postMessage({type: "error", message: error.message ?? String(error)});
  }
};

async function start(files) {
  const {networks, manifest, arrays, device: on} = await load(import.meta.url, files, (loaded, total) => postMessage({type: "progress", loaded, total}));
  [detector, device] = [new Detector(networks, manifest, arrays), on];
  await detector.observe(new Float32Array(3 * detector.size ** 2));   // the first run of a network prepares it
  postMessage({type: "ready", manifest, device, distances: arrays.distances.data, edges: arrays.edges.data,
    patchEdges: arrays.patch_edges?.data ?? null});
}

async function work() {
  busy = true;
  while (wanted) {
    const request = wanted;
    wanted = null;
    try {
      await detect(request);
    } catch (error) {
      if (!(error instanceof Superseded)) throw error;
    }
  }
  busy = false;
}

/** Lets messages in; gives up when there is a newer request. */
async function pause() {
  await new Promise(resume => setTimeout(resume));
  if (wanted) throw new Superseded();
}

async function detect({id, x0, settings: changes, ranges}) {
  const started = performance.now(), settings = {...detector.manifest.settings, ...changes};
  if (!last.x0 || x0.some((value, n) => value !== last.x0[n])) Object.assign(last, {seen: await detector.observe(x0), x0, key: null});
  await pause();
  const key = JSON.stringify({...settings, lam: null, patch_share: null});
  if (key !== last.key) Object.assign(last, {answer: await detector.respond(last.seen, settings, pause), key});
  const {path, ...found} = detector.weigh(last.answer, settings, ranges), ts = path.map(({t}) => t);
  postMessage({type: "found", id, ...found, ts, seconds: (performance.now() - started) / 1000});
  for (const {i, z0_hat} of [{i: -1, z0_hat: last.seen.z0}, ...path]) {
    await pause();
    postMessage({type: "step", id, i, x0_hat: await detector.networks.decode(z0_hat)});
  }
}
