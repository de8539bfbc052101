// A step for each region: Algorithm 2, asked of each position of the latent. An extension, not the paper's.
// The same functions as in ddad/step_map.py, and `stacked` of ddad/evaluation/patches.py, for one picture.
import {upsample} from "./anomaly_map.js";
import {bin, step} from "./dynamic_noise.js";

const PLAIN = {align_corners: false};

/** f: the blocks phi_j(x0) of j in J, {data, shape: [C_j, h_j, h_j]}, averaged over 3 x 3, brought to the finest and stacked: D layers of side h. */
export function stacked(phi_x0, J) {
  const h = Math.max(...J.map(j => phi_x0[j].shape[1])), layers = [];
  for (const {data, shape: [C, side]} of J.map(j => phi_x0[j])) for (let c = 0; c < C; c++) {
    layers.push(upsample(averaged(data.subarray(c * side * side, (c + 1) * side * side), side), side, h, PLAIN));
  }
  return {layers, h};
}

/** Each value the mean over 3 x 3, zero beyond the border. */
function averaged(values, h) {
  return values.map((_, n) => {
    const row = Math.floor(n / h), column = n % h;
    let sum = 0;
    for (let r = Math.max(row - 1, 0); r <= Math.min(row + 1, h - 1); r++) {
      for (let c = Math.max(column - 1, 0); c <= Math.min(column + 1, h - 1); c++) sum += values[r * h + c];
    }
    return sum / 9;
  });
}

/** d: the distance of each patch f(p) to the nearest row of the bank, {data, shape: [n, D]}; side h, brought to side `size`. */
export function patchDistance({layers, h}, {data, shape: [n, D]}, size) {
  const f = new Float32Array(D);
  const d = Float32Array.from({length: h * h}, (_, p) => {
    layers.forEach((layer, k) => { f[k] = layer[p]; });
    let least = Infinity;
    for (let row = 0; row < n * D; row += D) {
      let sum = 0;
      for (let k = 0; k < D && sum < least; k += 8) {                   // a patch that is already farther need not be summed to its end
        for (let i = k; i < Math.min(k + 8, D); i++) { const apart = f[i] - data[row + i]; sum += apart * apart; }
      }
      least = Math.min(least, sum);
    }
    return Math.sqrt(least);
  });
  return upsample(d, h, size, PLAIN);
}

/** T(p) of each position from its d, side h, and the bin b of the whole, the largest. */
export function stepMap(d, h, edges, settings) {
  const b = Array.from(d, value => bin(value, edges, settings));
  return {T: widened(b.map(one => step(one, settings)), h), b: Math.max(...b)};
}

/** Each step the largest among its own and its eight neighbours': a patch that holds an edge of a defect looks good. */
export function widened(T, h) {
  return T.map((_, n) => {
    const row = Math.floor(n / h), column = n % h;
    let largest = 0;
    for (let r = Math.max(row - 1, 0); r <= Math.min(row + 1, h - 1); r++) {
      for (let c = Math.max(column - 1, 0); c <= Math.min(column + 1, h - 1); c++) largest = Math.max(largest, T[r * h + c]);
    }
    return largest;
  });
}
