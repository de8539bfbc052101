// The thin conductor, as ddad/detector.py: it calls the rooms of the method in the order data flows, and holds no mathematics itself.
import * as maps from "./anomaly_map.js";
import {bin, feature, meanDistance, step} from "./dynamic_noise.js";
import {gaussian} from "./noise.js";
import {scaledDenoising} from "./scaled_denoising.js";

export class Detector {
  /** networks: of networks.js. manifest: detector.json. arrays: bank, distances, edges, alpha_bar as {data, shape}. */
  constructor(networks, manifest, arrays) {
    Object.assign(this, {networks, manifest, arrays, size: manifest.settings.image_size});
  }

  /** What does not depend on the step: latent z0, noise eps, features phi_j(x0), distance d of a picture x0 (3 H H) in [-1, 1]. */
  async observe(x0) {
    const {settings} = this.manifest, draw = gaussian(settings.seed);
    const {z0: mean, std} = await this.networks.encode(x0);
    const z0 = std ? mean.map((m, n) => m + std[n] * draw()) : mean;
    const eps = z0.map(draw);
    const phi_x0 = await this.networks.features(x0);
    const d = meanDistance(feature(phi_x0[settings.neighbour_stage], settings.neighbour_pool), this.arrays.bank, settings.neighbours);
    return {z0, eps, phi_x0, d};
  }

  /** Bin, step, the path of z0_hat, repainting x0_hat and both maps. onStep: async, may throw to give up. */
  async respond(seen, settings, onStep) {
    const b = bin(seen.d, this.arrays.edges.data, settings), T_hat = step(b, settings), path = [];
    const z0_hat = await scaledDenoising(this.networks.epsilon, seen.z0, T_hat, this.arrays.alpha_bar.data, settings, {
      eps: settings.noise ? seen.eps : null,
      onStep: async taken => { path.push(taken); await onStep(taken); },
    });
    const x0_hat = await this.networks.decode(z0_hat);
    const A_l = maps.latentMap(seen.z0, z0_hat, this.manifest.latent, this.size, settings);
    const A_f = maps.featureMap(seen.phi_x0, await this.networks.features(x0_hat), this.size, settings);
    return {d: seen.d, b, T_hat, path, x0_hat, A_l, A_f};
  }

  /** The answer with its map A, score and peak, and both maps as shares of their ranges, from the latent and feature map. */
  weigh(answer, settings) {
    const ranges = settings.map_range === "held-out" ? this.manifest.ranges : null;
    const A = maps.combine(answer.A_l, answer.A_f, ranges, this.size, settings);
    return {
      ...answer, A, ...maps.score(A, this.size),
      latent: maps.normalise(answer.A_l, ranges?.latent ?? maps.rangeOf(answer.A_l)),
      feature: maps.normalise(answer.A_f, ranges?.feature ?? maps.rangeOf(answer.A_f)),
    };
  }
}
