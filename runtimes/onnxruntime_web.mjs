// ONNX Runtime Web in a process of its own: node onnxruntime_web.mjs PACKAGE_FOLDER MODEL; frames as onnxruntime_web.py says.
import { readFileSync, writeSync, readSync } from "node:fs";
import { createRequire } from "node:module";

const [folder, model] = process.argv.slice(2);
const require = createRequire(folder + "/package.json");

// Blocking reads and writes: there is one question at a time, and nothing else to do.
function read(length) {
  const buffer = Buffer.alloc(length);
  for (let at = 0; at < length; ) {
    let count = 0;
    try {
      count = readSync(0, buffer, at, length - at, null);
    } catch (error) {
      if (error.code === "EAGAIN") continue;
      throw error;
    }
    if (count === 0) process.exit(0);
    at += count;
  }
  return buffer;
}

function write(buffer) {
  for (let at = 0; at < buffer.length; ) {
    try {
      at += writeSync(1, buffer, at);
    } catch (error) {
      if (error.code !== "EAGAIN") throw error;
    }
  }
}

function answer(header, data) {
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(text.length);
  write(Buffer.concat([length, text]));
  if (data) write(data);
}

const firstLine = (error) => String(error?.message ?? error).trim().split("\n")[0].replace(/\.$/, "");

const ARRAYS = {
  float32: Float32Array, float64: Float64Array, float16: Uint16Array, int8: Int8Array, uint8: Uint8Array,
  int16: Int16Array, uint16: Uint16Array, int32: Int32Array, uint32: Uint32Array, int64: BigInt64Array,
  uint64: BigUint64Array, bool: Uint8Array,
};

let ort, session;
try {
  ort = require(folder);
  ort.env.wasm.numThreads = 1;
  ort.env.logLevel = "error";
  session = await ort.InferenceSession.create(readFileSync(model), { executionProviders: ["wasm"] });
} catch (error) {
  answer({ error: firstLine(error) });
  process.exit(0);
}
const shape = session.inputMetadata?.[0]?.shape;
answer({ inputs: session.inputNames, batch: shape?.length ? shape[0] : null });

for (;;) {
  const request = JSON.parse(read(read(4).readUInt32LE()).toString());
  const feeds = {};
  for (const { name, type, dims } of request.inputs) {
    const kind = ARRAYS[type];
    const size = dims.reduce((a, b) => a * b, 1);
    const bytes = read(size * kind.BYTES_PER_ELEMENT);
    // Copied, because a Buffer may begin at an odd place of a larger one.
    const data = new kind(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
    feeds[name] = new ort.Tensor(type, data, dims);
  }
  try {
    const output = (await session.run(feeds, [session.outputNames[0]]))[session.outputNames[0]];
    const data = output.data;
    answer({ type: output.type, dims: output.dims }, Buffer.from(data.buffer, data.byteOffset, data.byteLength));
  } catch (error) {
    answer({ error: firstLine(error) });
  }
}
