// The detector's four networks, run by ONNX Runtime Web: on the graphics card by WebGPU where the browser can, else by WebAssembly on one
// thread, since threads need HTTP headers that static hosts do not send. Written by `ddad export`; ddad/deploy/export.py states every shape.

/** Downloads everything; onProgress gets the bytes loaded so far and their total. Returns {networks, manifest, arrays, device}. */
export async function load(base, files, onProgress) {
  let device = await webgpu() ? "webgpu" : "wasm";
  const {script, binary} = files.runtime[device];
  const wanted = [script, binary, ...files.model];
  const total = wanted.reduce((sum, name) => sum + files.bytes[name], 0);
  let loaded = 0;
  const get = async name => {
    const response = await fetch(new URL(name, base)), parts = [];
    if (!response.ok) throw new Error(`${name} could not be loaded (HTTP ${response.status})`);
    for (const reader = response.body.getReader(); ;) {
      const {done, value} = await reader.read();
      if (done) break;
      parts.push(value);
      onProgress(loaded += value.length, total);
    }
    const whole = new Blob(parts), zipped = parts[0][0] === 0x1f && parts[0][1] === 0x8b;         // unless the server unpacked it
    return new Uint8Array(await new Response(zipped ? whole.stream().pipeThrough(new DecompressionStream("gzip")) : whole).arrayBuffer());
  };
  const content = Object.fromEntries(await Promise.all(wanted.slice(1).map(async name => [name, await get(name)])));
  const ort = await import(new URL(script, base));
  onProgress(total, total);
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = content[binary];
  const manifest = JSON.parse(new TextDecoder().decode(content["model/detector.json"]));
  const open = async () => {
    const sessions = [];                                                // one after the other: the runtime starts up with the first
    for (const name of ["encoder", "decoder", "unet", "features"]) {
      sessions.push(await ort.InferenceSession.create(content[`model/${name}.onnx`], {executionProviders: [device], logSeverityLevel: 3}));
    }
    return sessions;
  };
  const opened = await open().catch(error => {
    if (device === "wasm") throw error;
    device = "wasm";                                                    // the graphics card refuses: this build of the runtime computes without, too
    return open();
  });
  return {networks: new Networks(ort, opened, manifest), manifest, arrays: arraysOf(content["model/detector.bin"], manifest.arrays), device};
}

/** Whether there is a graphics card to compute on, and WebAssembly that can wait for it. */
async function webgpu() {
  return "Suspending" in WebAssembly && Boolean(await navigator.gpu?.requestAdapter().catch(() => null));
}

/** The arrays of detector.bin: name -> {data, shape}. float16 becomes float32. */
export function arraysOf(bytes, table) {
  return Object.fromEntries(Object.entries(table).map(([name, {dtype, shape, offset}]) => {
    const count = shape.reduce((a, b) => a * b, 1), from = bytes.byteOffset + offset;
    const data = dtype === "float16" ? Float32Array.from(new Uint16Array(bytes.buffer, from, count), half) : new Float32Array(bytes.buffer, from, count);
    return [name, {data, shape}];
  }));
}

/** The number that 16 bits stand for. */
function half(bits) {
  const sign = bits >> 15 ? -1 : 1, exponent = bits >> 10 & 31, fraction = bits & 1023;
  return exponent ? sign * 2 ** (exponent - 15) * (1 + fraction / 1024) : sign * 2 ** -14 * (fraction / 1024);
}

class Networks {
  constructor(ort, [encoder, decoder, unet, features], {settings, latent, stages}) {
    const tensor = (values, shape) => new ort.Tensor("float32", values, [1, ...shape]);
    const image = [3, settings.image_size, settings.image_size];
    /** x0 (3 H H) -> {z0, std}; std where the detector draws its latents. */
    this.encode = async x0 => {
      const {z0, std} = await encoder.run({x0: tensor(x0, image)});
      return {z0: z0.data, std: std?.data};
    };
    /** z0 (C h h) -> x0_hat (3 H H) in [-1, 1]. */
    this.decode = async z0 => (await decoder.run({z0: tensor(z0, latent)})).x0.data;
    /** (z_t, t) -> e. */
    this.epsilon = async (z_t, t) => (await unet.run({z_t: tensor(z_t, latent), t: new ort.Tensor("float32", [t], [1])})).e.data;
    /** x0 (3 H H) -> {j: {data, shape: [C_j, h_j, h_j]}} for the blocks j in use. */
    this.features = async x0 => {
      const out = await features.run({x0: tensor(x0, image)});
      return Object.fromEntries(stages.map(j => [j, {data: out[`phi_${j}`].data, shape: out[`phi_${j}`].dims.slice(1)}]));
    };
  }
}
