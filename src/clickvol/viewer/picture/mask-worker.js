// Reads masks apart from the page, which goes on meanwhile: a length, a JSON text, and zlib of one bit per voxel.

/** Return the bytes of zlib. */
export async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Return {tag, objects} of an answer; objects that changed have `voxels`, one byte per voxel of their box. */
export async function readMasks(buffer) {
  const view = new DataView(buffer);
  let at = 4 + view.getUint32(0, true);
  const { tag, objects } = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, at - 4)));
  for (const object of objects) {
    if (object.length === undefined) continue;
    const count = object.shape_ijk.reduce((product, length) => product * length, 1);
    object.voxels = new Uint8Array(count);
    if (object.length) {
      const bits = await inflate(new Uint8Array(buffer, at, object.length));
      for (let n = 0; n < count; n++) object.voxels[n] = (bits[n >> 3] >> (7 - (n & 7))) & 1;
    }
    at += object.length;
  }
  return { tag, objects };
}

// In a test there is no worker.
if (typeof self !== "undefined" && typeof document === "undefined") {
  self.addEventListener("message", async ({ data: { number, buffer } }) => {
    try {
      const read = await readMasks(buffer);
      const moved = read.objects.flatMap((object) => (object.voxels ? [object.voxels.buffer] : []));
      self.postMessage({ number, read }, moved);
    } catch (error) {
      self.postMessage({ number, problem: String(error) });
    }
  });
}
