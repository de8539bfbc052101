// Anomaly map and score (paper, section 3.5): where picture and repainting differ, in the latent and in the features.
// The same functions as in ddad/anomaly_map.py. A map of side n is a Float32Array of n * n values, row by row.

/** Bilinear, from side h to side `size`. */
export function upsample(values, h, size, {align_corners}) {
  const scale = align_corners ? (h - 1) / (size - 1) : h / size;
  const places = Array.from({length: size}, (_, i) => {
    const x = align_corners ? i * scale : Math.max(0, (i + 0.5) * scale - 0.5);
    const low = Math.floor(x);
    return [low, Math.min(low + 1, h - 1), x - low];
  });
  const out = new Float32Array(size * size);
  places.forEach(([top, bottom, y], row) => places.forEach(([left, right, x], column) => {
    const above = (1 - x) * values[top * h + left] + x * values[top * h + right];
    const below = (1 - x) * values[bottom * h + left] + x * values[bottom * h + right];
    out[row * size + column] = (1 - y) * above + y * below;
  }));
  return out;
}

/** A_l: |z0 - z0_hat|, blurred before where latent_blur says so, mean over the channels of latents of shape [C, h, h], upsampled. */
export function latentMap(z0, z0_hat, [C, h], size, settings) {
  const mean = new Float32Array(h * h);
  for (let c = 0; c < C; c++) {
    const channel = Float32Array.from({length: h * h}, (_, n) => z0[c * h * h + n] - z0_hat[c * h * h + n]);
    const difference = settings.latent_blur ? smooth(channel, h, settings.latent_blur) : channel;
    difference.forEach((value, n) => { mean[n] += Math.abs(value) / C; });
  }
  return upsample(mean, h, size, settings);
}

/** A_f: sum over blocks J of 1 - cos(phi_j(x0), phi_j(x0_hat)), upsampled; phi: j -> {data, shape: [C_j, h_j, h_j]}. */
export function featureMap(phi_x0, phi_x0_hat, size, settings) {
  const sum = new Float32Array(size * size);
  for (const j of settings.map_stages) {
    const a = phi_x0[j].data, b = phi_x0_hat[j].data, [C, h] = phi_x0[j].shape, distance = new Float32Array(h * h);
    for (let p = 0; p < h * h; p++) {
      let ab = 0, aa = 0, bb = 0;
      for (let n = p; n < C * h * h; n += h * h) { ab += a[n] * b[n]; aa += a[n] * a[n]; bb += b[n] * b[n]; }
      distance[p] = 1 - ab / Math.max(Math.sqrt(aa * bb), 1e-8);
    }
    upsample(distance, h, size, settings).forEach((value, n) => { sum[n] += value; });
  }
  return sum;
}

/** [smallest, largest] value of a map: its range where no held-out good pictures give one. */
export const rangeOf = A => [A.reduce((a, b) => Math.min(a, b)), A.reduce((a, b) => Math.max(a, b))];

/** (A - low) / (high - low): [0, 1] on held-out good pictures, beyond on others. */
export const normalise = (A, [low, high]) => A.map(value => (value - low) / Math.max(high - low, 1e-8));

/** A: both maps as shares of their ranges, weighed by lambda, smoothed. A third, the patches' distances, takes patch_share of the whole. */
export function combine({latent, feature, patch}, size, {lam, patch_share, sigma}) {
  const A = latent.map((value, n) => lam * value + (1 - lam) * feature[n]);
  return smooth(patch_share ? A.map((value, n) => (1 - patch_share) * value + patch_share * patch[n]) : A, size, sigma * size / 256);
}

/** Gaussian of `sigma` pixels, cut at 4 sigma, mirrored at the border: along the rows, then along the columns. */
export function smooth(A, size, sigma) {
  const radius = Math.min(Math.floor(4 * sigma + 0.5), size - 1);
  const kernel = Array.from({length: 2 * radius + 1}, (_, i) => Math.exp(-((i - radius) ** 2) / (2 * sigma ** 2)));
  const total = kernel.reduce((a, b) => a + b, 0);
  const mirror = i => size - 1 - Math.abs(size - 1 - Math.abs(i));
  const along = (values, index) => {
    const out = new Float32Array(size * size);
    for (let a = 0; a < size; a++) for (let b = 0; b < size; b++) {
      let sum = 0;
      for (let k = -radius; k <= radius; k++) sum += kernel[k + radius] / total * values[index(a, mirror(b + k))];
      out[index(a, b)] = sum;
    }
    return out;
  };
  return along(along(A, (row, column) => row * size + column), (column, row) => row * size + column);
}

/** The picture's score, the largest value of A, and the pixel [column, row] that has it. */
export function score(A, size) {
  const n = A.reduce((best, value, i) => value > A[best] ? i : best, 0);
  return {score: A[n], peak: [n % size, Math.floor(n / size)]};
}
