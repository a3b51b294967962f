// What of the viewer needs no page, with exact numbers; run by Node: npm test.

import assert from "node:assert/strict";
import { deflateSync } from "node:zlib";
import test from "node:test";

import { fileName } from "../../src/clickvol/viewer/files/saving.js";
import { stepOf } from "../../src/clickvol/viewer/keyboard.js";
import { readMasks } from "../../src/clickvol/viewer/mask-worker.js";
import { volumeText } from "../../src/clickvol/viewer/objects/panel.js";
import { makeWheel, zoomFactor } from "../../src/clickvol/viewer/pointer.js";
import { initialState, makeStore, nameOf, nextObjectId } from "../../src/clickvol/viewer/state.js";
import { GERMAN } from "../../src/clickvol/viewer/strings/german.js";
import { chosenLanguage, t } from "../../src/clickvol/viewer/strings/strings.js";
import { draggedWindow, presetsFor, windowOf, windowText } from "../../src/clickvol/viewer/windows.js";

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
