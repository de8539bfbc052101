// The thin conductor, as ddad/detector.py: it calls the rooms of the method in the order data flows, and holds no mathematics itself.
import * as maps from "./anomaly_map.js";
import {bin, feature, meanDistance, step} from "./dynamic_noise.js";
import {gaussian} from "./noise.js";
import {scaledDenoising} from "./scaled_denoising.js";
import {patchDistance, stacked, stepMap} from "./step_map.js";

export class Detector {
  /** networks: of networks.js. manifest: detector.json. arrays: those of detector.bin as {data, shape}. */
  constructor(networks, manifest, arrays) {
    Object.assign(this, {networks, manifest, arrays, size: manifest.settings.image_size});
  }

  /** What does not depend on the step, of a picture x0 (3 H H) in [-1, 1]: latent z0, noise eps, features phi_j(x0), distance d, d_p of its patches. */
  async observe(x0) {
    const {settings, latent: [, h]} = this.manifest, {bank, patch_bank} = this.arrays, draw = gaussian(settings.seed);
    const {z0: mean, std} = await this.networks.encode(x0);
    const z0 = std ? mean.map((m, n) => m + std[n] * draw()) : mean;
    const eps = z0.map(draw);
    const phi_x0 = await this.networks.features(x0);
    const d = meanDistance(feature(phi_x0[settings.neighbour_stage], settings.neighbour_pool), bank, settings.neighbours);
    const d_p = patch_bank ? patchDistance(stacked(phi_x0, settings.map_stages), patch_bank, h) : null;
    return {z0, eps, phi_x0, d, d_p};
  }

  /** The bin b and step T_hat of the picture and, by region, the step T of each position; of these the largest then are the picture's. */
  step({d, d_p}, settings) {
    if (settings.step_rule === "region") {
      const {T, b} = stepMap(d_p, this.manifest.latent[1], this.arrays.patch_edges.data, settings);
      return {b, T_hat: Math.max(...T), T};
    }
    const b = bin(d, this.arrays.edges.data, settings);
    return {b, T_hat: step(b, settings), T: null};
  }

  /** Bin, steps, the path of z0_hat, repainting x0_hat and the maps. onStep: async, may throw to give up. */
  async respond(seen, settings, onStep) {
    const {latent} = this.manifest, {b, T_hat, T} = this.step(seen, settings), path = [];
    const z0_hat = await scaledDenoising(this.networks.epsilon, seen.z0, T_hat, this.arrays.alpha_bar.data, settings, {
      eps: settings.noise ? seen.eps : null,
      stepMap: T,
      onStep: async taken => { path.push(taken); await onStep(taken); },
    });
    const x0_hat = await this.networks.decode(z0_hat);
    const A_l = maps.latentMap(seen.z0, z0_hat, latent, this.size, settings);
    const A_f = maps.featureMap(seen.phi_x0, await this.networks.features(x0_hat), this.size, settings);
    const A_p = seen.d_p && maps.upsample(seen.d_p, latent[1], this.size, settings);
    return {d: seen.d, d_p: seen.d_p, b, T_hat, T, path, x0_hat, A_l, A_f, A_p};
  }

  /** The answer with its map A, score and peak, and the single maps as shares of their ranges: the given ones, or else the detector's own. */
  weigh(answer, settings, ranges = this.manifest.ranges) {
    const of = settings.map_range === "held-out" ? ranges : null;
    const share = (A, range) => A && maps.normalise(A, range ?? maps.rangeOf(A));
    const single = {latent: share(answer.A_l, of?.latent), feature: share(answer.A_f, of?.feature), patch: share(answer.A_p, of?.patch)};
    const A = maps.combine(single, this.size, settings);
    return {...answer, ...single, A, ...maps.score(A, this.size)};
  }
}
