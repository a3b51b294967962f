// Which grey values a screen shows: presets for CT, percentiles for everything else.

// Level and width in Hounsfield units, as radiology commonly sets them.
/** @type {{id: string, name: string, level?: number, width?: number}[]} */
const CT_PRESETS = [
  { id: "soft", name: "Soft tissue", level: 40, width: 400 },
  { id: "lung", name: "Lung", level: -600, width: 1500 },
  { id: "bone", name: "Bone", level: 400, width: 1800 },
];
/** @type {{id: string, name: string, level?: number, width?: number}} */
const AUTO = { id: "auto", name: "Auto" };

// The darkest and brightest half per cent are noise, metal or vessels, and are given up.
const AUTO_FRACTIONS = [0.005, 0.995];
const MAX_SAMPLES = 200_000;

/**
 * Return the presets that make sense for a modality, in the order of the keys 1 to 4.
 *
 * @param {string} modality
 */
export const presetsFor = (modality) => (modality === "CT" ? [...CT_PRESETS, AUTO] : [AUTO]);

/**
 * Return {low, high} of a preset, in the scan's own unit.
 *
 * @param {{level?: number, width?: number}} preset of `presetsFor`
 * @param {{img: ArrayLike<number>, hdr: object}} image of NiiVue; read for "auto" only.
 */
export function windowOf(preset, image) {
  const { level, width } = preset;
  if (level === undefined || width === undefined) return percentileWindow(image);
  return { low: level - width / 2, high: level + width / 2 };
}

function sortedSamples({ img, hdr }) {
  const slope = hdr.scl_slope || 1;
  const inter = hdr.scl_inter || 0;
  const step = Math.max(1, Math.floor(img.length / MAX_SAMPLES));
  const samples = new Float64Array(Math.ceil(img.length / step));
  for (let n = 0; n < samples.length; n++) samples[n] = img[n * step] * slope + inter;
  return samples.sort();
}

function percentileWindow(image) {
  const samples = sortedSamples(image);
  // What surrounds the patient (air, or zero) fills much of a scan and says nothing about it.
  const floor = samples[0];
  const first = samples.findIndex((value) => value > floor);
  const inside = first < 0 ? samples : samples.subarray(first);
  const at = (fraction) => inside[Math.floor(fraction * (inside.length - 1))];
  const [low, high] = AUTO_FRACTIONS.map(at);
  return high > low ? { low, high } : { low: floor, high: floor + 1 };
}

/**
 * Return the window after a drag: to the right is wider, upwards is darker (a higher level).
 *
 * The step is a part of the width, so that SUV of 5 and HU of 2000 feel the same.
 */
export function draggedWindow({ low, high }, dx, dy) {
  const width = high - low;
  const level = (low + high) / 2 - (dy / 300) * width;
  const wider = Math.max(width * Math.exp(dx / 250), 1e-6 * (Math.abs(level) + 1));
  return { low: level - wider / 2, high: level + wider / 2 };
}

/** Return "W 400 L 40". */
export function windowText({ low, high }) {
  const width = high - low;
  const digits = width >= 20 ? 0 : 2;
  return `W ${width.toFixed(digits)}  L ${((low + high) / 2).toFixed(digits)}`;
}
