// What of the viewer needs no page, with exact numbers; run by Node: npm test.

import assert from "node:assert/strict";
import { deflateSync, inflateSync } from "node:zlib";
import test from "node:test";

import { outlineOn, readDrawn } from "../../src/clickvol/viewer/comparing/outline.js";
import { fileName } from "../../src/clickvol/viewer/files/saving.js";
import { stepOf } from "../../src/clickvol/viewer/keyboard.js";
import { halfOf, scaleOf, thinned, toTexture, windowNumbers, withGreys } from "../../src/clickvol/viewer/picture/grey-texture.js";
import { inflate, readMasks } from "../../src/clickvol/viewer/picture/mask-worker.js";
import { withoutOptions } from "../../src/clickvol/viewer/notices.js";
import { promptsText, volumeText } from "../../src/clickvol/viewer/objects/panel.js";
import { distanceMm } from "../../src/clickvol/viewer/measuring/rulers.js";
import { withName } from "../../src/clickvol/viewer/objects/describing.js";
import { makeWheel, zoomFactor } from "../../src/clickvol/viewer/pointer.js";
import { withLetter } from "../../src/clickvol/viewer/shortcuts.js";
import { initialState, makeStore, nameOf, nextObjectId } from "../../src/clickvol/viewer/state.js";
import { GERMAN } from "../../src/clickvol/viewer/strings/german.js";
import { chosenLanguage, t } from "../../src/clickvol/viewer/strings/strings.js";
import { boxInSpace, boxOf, voxelsOfBox } from "../../src/clickvol/viewer/tools/boxes.js";
import { Grid, boxAround, packed, polygonVoxels, strokeVoxels, visitBall } from "../../src/clickvol/viewer/tools/voxels.js";
import { draggedWindow, presetsFor, windowOf, windowText } from "../../src/clickvol/viewer/picture/windows.js";

test("a wheel goes a slice per notch, and collects the steps of a touchpad", () => {
  const slices = makeWheel();
  const turns = [100, -100, 200, 15, 14, 2, -30].map((deltaY) => slices({ deltaY, deltaMode: 0 }));
  assert.deepEqual(turns, [1, -1, 2, 0, 0, 1, -1]);
  assert.equal(makeWheel()({ deltaY: 3, deltaMode: 1 }), 1); // lines
});

test("zoom is bounded for a notch, and the way back undoes it", () => {
  assert.equal(zoomFactor({ deltaY: -100, deltaMode: 0 }), Math.exp(0.22));
  const there = zoomFactor({ deltaY: 7, deltaMode: 0 });
  assert.ok(Math.abs(there * zoomFactor({ deltaY: -7, deltaMode: 0 }) - 1) < 1e-12);
});

test("grey values are sent as halves, exact to 2048 and rounded above, and scaled where they are too large", () => {
  const cases = [[0, 0], [1, 0x3c00], [-2, 0xc000], [2047, 0x67ff], [-1024, 0xe400], [2049.9, 0x6801], [65504, 0x7bff], [1e9, 0x7bff],
    [2 ** -24, 1], [2 ** -14, 0x0400], [0.1, 0x2e66], [NaN, 0]];
  for (const [number, bits] of cases) assert.equal(halfOf(number), bits, String(number));
  assert.equal(scaleOf(new Int16Array([-32768])), 1);
  assert.equal(scaleOf(new Uint16Array([65535])), 0.5);
  assert.equal(scaleOf(new Float32Array([-0.001, 100000])), 0.5);
  assert.equal(scaleOf(new Float32Array([20])), 2048);
  assert.equal(scaleOf(new Float32Array([0])), 1);
});

test("a window is a factor and a summand: 0 at its low end, 1 at its high one", () => {
  const [factor, summand, inverted, opacity] = windowNumbers({ slope: 2, inter: -1000 }, { low: -160, high: 240 }, true, 0.5);
  assert.deepEqual([(-160 + 1000) / 2, (240 + 1000) / 2].map((texel) => texel * factor + summand), [0, 1]);
  assert.deepEqual([inverted, opacity], [1, 0.5]);
});

test("the 3D view gets every second voxel along the longest axes, until there are few enough", () => {
  const img = Int16Array.from({ length: 4 * 3 * 2 }, (_, n) => n);
  assert.deepEqual(thinned(img, [3, 4, 3, 2, 1], 24), { img, dims: [3, 4, 3, 2, 1] });
  assert.deepEqual(thinned(img, [3, 4, 3, 2, 1], 8), { img: Int16Array.from([0, 2, 8, 10, 12, 14, 20, 22]), dims: [3, 2, 2, 2, 1] });
});

test("a place on the scan is looked up where the file has it, though its axes are turned and swapped", () => {
  // Right to left is the file's second axis, backwards; the third one runs from head to foot.
  const columns = toTexture({ permRAS: [-2, 1, -3] }, (place) => place);
  const at = (place) => [0, 1, 2].map((row) => place.reduce((sum, each, n) => sum + each * columns[4 * n + row], columns[12 + row]));
  assert.deepEqual(at([0.25, 0.5, 0.125]), [0.5, 0.75, 0.875]);
});

test("a message loses its hint at options of the command line, and no other brackets", () => {
  assert.equal(withoutOptions("no PET model (--model promise3d-lesions was trained on PET, too); take care"), "no PET model; take care");
  assert.equal(withoutOptions("taken for CT (the file does not say; --modality CT says it)"), "taken for CT");
  assert.equal(withoutOptions("no files by path; upload the scan, or start it with --root"), "no files by path; upload the scan");
  assert.equal(withoutOptions("voxel (1, 2, 3) is air"), "voxel (1, 2, 3) is air");
});

test("an object says what it was made from", () => {
  const object = { clicks: [], marks: [], frozen: false, num_voxels: 0 };
  assert.equal(promptsText(object), "0 clicks");
  assert.equal(promptsText({ ...object, clicks: [1], frozen: true }), "1 click, frozen");
  assert.equal(promptsText({ ...object, marks: [1] }), "1 prompt");
  assert.equal(promptsText({ ...object, clicks: [1], marks: [1] }), "2 prompts");
  assert.equal(promptsText({ ...object, num_voxels: 5 }), "given or painted");
});

test("a shader that is not the known one is told, not drawn with", () => {
  assert.throws(() => withGreys("void main() {}"), /another shader/);
});

test("presets give their window, and automatic ones the percentiles of what is not background", () => {
  const [soft] = presetsFor("CT");
  assert.deepEqual(windowOf(soft, {}), { low: -160, high: 240 });
  assert.deepEqual(presetsFor("MR").map(({ id }) => id), ["auto"]);
  const img = Float32Array.from({ length: 1101 }, (_, n) => Math.max(0, n - 99)); // 0 to 1001, the first hundred 0
  const hdr = { scl_slope: 2, scl_inter: 10 };
  assert.deepEqual(windowOf(presetsFor("MR")[0], { img, hdr }), { low: 22, high: 2002 });
  assert.deepEqual(windowOf({}, { img: new Uint8Array(4), hdr: {} }), { low: 0, high: 1 });
});

test("a drag to the right widens, one upwards raises the level by the same part of the width", () => {
  const { low, high } = draggedWindow({ low: 0, high: 300 }, 0, -100);
  assert.deepEqual([low, high], [100, 400]);
  const wider = draggedWindow({ low: -1, high: 1 }, 250, 0);
  assert.ok(Math.abs(wider.high - wider.low - 2 * Math.E) < 1e-12);
  assert.equal(windowText({ low: -160, high: 240 }), "W 400  L 40");
  assert.equal(windowText({ low: 0, high: 5 }), "W 5.00  L 2.50");
});

test("the store tells what there was before, and objects come round", () => {
  const store = makeStore();
  const seen = [];
  store.subscribe((state, before) => seen.push([before.opacity, state.opacity]));
  store.set({ opacity: 0.5 });
  assert.deepEqual(seen, [[0.35, 0.5]]);
  const objects = [{ id: 1 }, { id: 3 }];
  assert.equal(nextObjectId({ ...initialState(), session: { objects }, selected: 1 }), 3);
  assert.equal(nextObjectId({ ...initialState(), session: { objects }, selected: 3 }), 1);
  assert.equal(nameOf({ id: 2, name: "" }), "Tumour 2");
});

test("volumes have three digits that mean something", () => {
  const text = (volume_ml) => volumeText({ volume_ml, num_voxels: 1 });
  assert.deepEqual([text(0.123), text(9.876), text(98.76), text(987.6)], ["0.12 ml", "9.88 ml", "98.8 ml", "988 ml"]);
  assert.equal(volumeText({ volume_ml: 0, num_voxels: 0 }), "–");
});

test("files are named after the scan, as any system may call them", () => {
  assert.equal(fileName("leg.nii.gz", "nifti"), "leg_mask.nii.gz");
  assert.equal(fileName('a<b>:"c".zip', "rtstruct"), "a_b_c__rtstruct.dcm");
  assert.equal(fileName(".nii", "nrrd"), "clickvol_mask.nrrd");
});

test("arrows move as the screen shows: the patient's right and the nose are at the left", () => {
  assert.deepEqual(stepOf("ArrowLeft", 2), [1, 0, 0]);
  assert.deepEqual(stepOf("ArrowLeft", 0), [0, 1, 0]);
  assert.deepEqual(stepOf("PageDown", 1), [0, -1, 0]);
});

test("masks come as a length, a text, and bits, the first voxel in the highest", async () => {
  const bits = deflateSync(Uint8Array.of(0b10100000, 0b01000000));
  const objects = [{ id: 1, hash: "a", start_ijk: [0, 0, 0], shape_ijk: [5, 2, 1], length: bits.length }, { id: 2, hash: "b" }];
  const text = new TextEncoder().encode(JSON.stringify({ tag: "x", objects }));
  const length = new Uint8Array(4);
  new DataView(length.buffer).setUint32(0, text.length, true);
  const read = await readMasks(Uint8Array.of(...length, ...text, ...bits).buffer);
  assert.equal(read.tag, "x");
  assert.deepEqual([...read.objects[0].voxels], [1, 0, 1, 0, 0, 0, 0, 0, 0, 1]);
  assert.equal(read.objects[1].voxels, undefined);
});

test("a language is the one that was set, else the first of the browser's that there is, else English", () => {
  assert.equal(chosenLanguage("de", ["en"]), "de");
  assert.equal(chosenLanguage("xx", ["fr-CH", "de-CH", "en"]), "de");
  assert.equal(chosenLanguage(null, ["fr"]), "en");
});

test("texts are translated with their values; what has no translation stays", () => {
  assert.equal(t("{count} clicks", { count: 3 }, GERMAN), "3 Klicks");
  assert.equal(t("what the server says", {}, GERMAN), "what the server says");
  assert.equal(t("{count} of {other}", { count: 0 }), "0 of {other}");
});

test("every German text has the places of the English one", () => {
  const places = (text) => (text.match(/\{\w+\}/g) ?? []).sort();
  for (const [english, german] of Object.entries(GERMAN)) assert.deepEqual(places(german), places(english), english);
});

// i runs towards the back, j to the left, k to the head; 3, 2 and 4 mm.
const GRID = new Grid([10, 12, 14], [[0, -2, 0, 5], [3, 0, 0, -7], [0, 0, 4, 1]]);
const visited = (...words) => {
  const voxels = [];
  visitBall(...words, (voxel) => voxels.push(voxel.join()));
  return voxels;
};

test("voxels and millimetres are one another's inverse", () => {
  assert.deepEqual(GRID.spacingMm, [3, 2, 4]);
  assert.deepEqual(GRID.mmOf([1, 2, 3]), [1, -4, 13]);
  assert.deepEqual(GRID.voxelOf([1, -4, 13]), [1, 2, 3]);
  assert.deepEqual(GRID.nearest([1, -40, 999]), [0, 2, 13]);
  assert.equal(GRID.indexOf([1, 2, 3]), 1 + 10 * (2 + 12 * 3));
  assert.deepEqual(GRID.voxelAt(GRID.indexOf([9, 11, 13])), [9, 11, 13]);
});

test("strokes are connected, lassos hold the centres inside them", () => {
  assert.deepEqual([...new Set(strokeVoxels([0, 0, 1], [3, 0, 1]).map(String))], ["0,0,1", "1,0,1", "2,0,1", "3,0,1"]);
  const square = [[0.5, 0.5, 2], [3.5, 0.5, 2.2], [3.5, 2.5, 2], [0.5, 2.5, 2]];
  assert.deepEqual(polygonVoxels(square, 2).map(String), ["1,1,2", "2,1,2", "3,1,2", "1,2,2", "2,2,2", "3,2,2"]);
  assert.deepEqual(polygonVoxels([[4, 0.5, 0.5], [4, 1.5, 0.5], [4, 1.5, 1.5], [4, 0.5, 1.5]], 0), [[4, 1, 1]]);
});

test("the brush measures millimetres, on a slice or in space, and paints one voxel at least", () => {
  assert.equal(visited([5, 5, 5], 2, [1, 1, 1], null).length, 33); // x² + y² + z² <= 4
  assert.equal(visited([5, 5, 5.3], 2, [1, 1, 1], 2).length, 13); // x² + y² <= 4
  assert.deepEqual(visited([5, 5, 5], 3, [3, 2, 4], null).toSorted(), ["4,5,5", "5,4,5", "5,5,5", "5,6,5", "6,5,5"]);
  assert.deepEqual(visited([5.4, 5.4, 5.4], 0.1, [3, 2, 4], null), ["5,5,5"]);
});

test("drawn voxels travel as a box and its bits, the first voxel highest, i fastest", async () => {
  const voxels = [[1, 2, 3], [2, 2, 3], [1, 3, 4]];
  assert.deepEqual(boxAround(voxels), { start: [1, 2, 3], shape: [2, 2, 2] });
  const { start_dhw, shape_dhw, bits } = await packed(voxels);
  assert.deepEqual([start_dhw, shape_dhw], [[3, 2, 1], [2, 2, 2]]);
  assert.deepEqual([...inflateSync(Buffer.from(bits, "base64"))], [0b11000010]);
});

test("a box on a slice and one in another plane across it are a box in space", () => {
  const { interaction, mark } = boxOf(GRID, [2, 3, 5], [6, 8, 5], true);
  assert.deepEqual([interaction.first, interaction.second], [[2, 3, 5], [6, 8, 5]]);
  assert.deepEqual(voxelsOfBox(GRID, mark), { low: [2, 3, 5], high: [6, 8, 5] });
  const object = { clicks: [{ place: 0 }], marks: [{ ...mark, place: 1 }] };
  assert.deepEqual(boxInSpace(GRID, object, 1, [3, 4, 2], [5, 4, 9]), { place: 1, low: [2, 3, 2], high: [6, 8, 9] });
  assert.equal(boxInSpace(GRID, object, 2, [3, 4, 7], [5, 6, 7]), null); // the same plane
  assert.equal(boxInSpace(GRID, object, 1, [3, 9, 2], [5, 9, 9]), null); // beside the first
  assert.equal(boxInSpace(GRID, { ...object, clicks: [{ place: 2 }] }, 1, [3, 4, 2], [5, 4, 9]), null); // not the last
});

test("the outline of a voxel is its four borders, and what is shared by two is none", () => {
  const mask = { start: [4, 5, 6], shape: [2, 1, 1], voxels: Uint8Array.of(1, 1) };
  const edges = outlineOn(mask, 2, 6);
  assert.equal(edges.length, 6);
  assert.ok(edges.some(([from, to]) => `${from} ${to}` === "3.5,4.5,6 3.5,5.5,6"));
  assert.ok(!edges.some(([from, to]) => from[0] === 4.5 && to[0] === 4.5)); // between the two
  assert.deepEqual(outlineOn(mask, 2, 7), []);
  assert.equal(outlineOn(mask, 0, 5).length, 4);
  assert.equal(outlineOn(mask, 0, 5)[0][0][0], 5);
});

test("a drawing of the server comes as (i, j, k)", async () => {
  const bits = deflateSync(Uint8Array.of(0b10010000)).toString("base64");
  const drawn = await readDrawn({ start_dhw: [6, 5, 4], shape_dhw: [1, 2, 2], bits }, inflate);
  assert.deepEqual([drawn.start, drawn.shape, [...drawn.voxels]], [[4, 5, 6], [2, 2, 1], [1, 0, 0, 1]]);
  assert.equal((await readDrawn({ start_dhw: [0, 0, 0], shape_dhw: [0, 0, 0], bits: "" }, inflate)).voxels.length, 0);
});

test("distances are in space, and names given lately come first and once", () => {
  assert.equal(distanceMm([1, 2, 3], [3, 5, 9]), 7);
  assert.deepEqual(withName(["liver", "node"], "node"), ["node", "liver"]);
  assert.equal(withName(Array.from({ length: 40 }, (_, n) => String(n)), "new").length, 30);
});

test("a letter that another command had goes to it in exchange, and own letters are not kept", () => {
  const all = ["v", "p", "n"];
  const once = withLetter({}, "v", "p", all);
  assert.deepEqual(once, { v: "p", p: "v" });
  assert.deepEqual(withLetter(once, "n", "v", all), { v: "p", p: "n", n: "v" });
  assert.deepEqual(withLetter(once, "v", "v", all), {});
  assert.deepEqual(withLetter({}, "n", "q", all), { n: "q" });
});
