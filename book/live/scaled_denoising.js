// Scaled denoising (paper, section 3.3, Algorithm 1 and equation 8): the latent is scaled, not noised, then denoised towards itself by DDIM.
// The same functions as in ddad/scaled_denoising.py, for one picture.

/** The steps a picture visits, first to last: T_hat, .., 2k, k, then -1, where abar is 1. */
export function timesteps(T_hat, {ddim_steps: S, first_call}) {
  const path = Array.from({length: S}, (_, i) => Math.floor(T_hat * (S - i - (first_call === "below" ? 1 : 0)) / S));
  return [...path, -1];
}

/**
 * Algorithm 1: z0 (C h w), scaled to step T_hat, back to a clean latent z0_hat of the same length.
 * epsTheta: async (z_t, t) -> e, the predicted noise. abar: alpha_bar (T). eps: noise to start from, or null for scaling only.
 * stepMap: each position's own step (h w), at most T_hat (an extension: step_map.js), or null for T_hat at all of them.
 * onStep: async, gets {i, t, z0_hat} after each step.
 */
export async function scaledDenoising(epsTheta, z0, T_hat, abar, settings, {eps = null, stepMap = null, onStep = async () => {}} = {}) {
  const {guidance: w, call_every, z0_from, step_rule, static_first_step} = settings;
  const at = t => t < 0 ? 1 : abar[t];
  const zeroFirst = step_rule === "static" && static_first_step === "zeroed";         // a fault of the official code's static sampler
  const path = timesteps(T_hat, settings);
  const start = at(T_hat);
  let z_t = z0.map((z, n) => Math.sqrt(start) * z + (eps ? Math.sqrt(1 - start) * eps[n] : 0));
  let calls = [], e;                                                     // sigma and e of the last two calls
  for (let i = 0; i + 1 < path.length; i++) {
    const t = path[i], abar_t = at(t), abar_prev = at(path[i + 1]);
    const signal = Math.sqrt(abar_t), noise = Math.sqrt(1 - abar_t);
    const sigma = noise / signal;
    if (stepMap) z_t = z_t.map((z, n) => stepMap[n % stepMap.length] >= t ? z : signal * z0[n]);  // put back where its turn has not come
    if (i % call_every === 0) {
      e = await epsTheta(z_t, t);
      calls = [...calls.slice(-1), {sigma, e}];
    } else if (calls.length === 2) {                                    // between calls: the line, in sigma, through the last two
      const [first, second] = calls, along = second.sigma < first.sigma ? (sigma - second.sigma) / (second.sigma - first.sigma) : 0;
      e = second.e.map((e_n, n) => e_n + along * (e_n - first.e[n]));
    }
    const e_hat = e.map((e_n, n) => e_n - w * noise * (signal * z0[n] + noise * e_n - z_t[n]));      // target_t - z_t, in brackets
    const used = z0_from === "e_hat" ? e_hat : e;
    const z0_hat = z_t.map((z, n) => (z - noise * used[n]) / signal);
    const direction = zeroFirst && i === 0 ? 0 : Math.sqrt(1 - abar_prev);
    z_t = z0_hat.map((z, n) => Math.sqrt(abar_prev) * z + direction * e_hat[n]);
    await onStep({i, t, z0_hat});
  }
  return z_t;
}
