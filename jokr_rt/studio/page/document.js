// The edits document, as jokr_rt/edits.py defines it, and its history. A document is never changed, only replaced.

const APART = 1e-6; // seconds: keys nearer than that are the same
const STORED = "jokr-history"; // in the tab's sessionStorage
const KEPT = 100; // steps back, and as many forth, that outlive a reload of the page

export const STYLE = { interpolation: "cubic", fade: 0.5 }; // of a track, unless it says otherwise

export const nothing = () => ({ jokr_edits: 1, smooth: 0, exaggerate: 1, mirror: false, speed: 1, keypoints: [] });

export const trackOf = (edits, keypoint) => edits.keypoints.find((track) => track.keypoint === keypoint);

export const keysOf = (edits, keypoint) => trackOf(edits, keypoint)?.keys || [];

export const keyAt = (edits, keypoint, time) => keysOf(edits, keypoint).find((key) => Math.abs(key.time - time) < APART);

function withTrack(edits, keypoint, track) {
  const others = edits.keypoints.filter((other) => other.keypoint !== keypoint);
  const keypoints = (track ? [...others, track] : others).sort((one, other) => one.keypoint - other.keypoint);
  return { ...edits, keypoints };
}

// A new track is as `style`: { interpolation, fade }.
export function withKey(edits, keypoint, key, style) {
  const track = trackOf(edits, keypoint) || { keypoint, keys: [], ...style };
  const others = track.keys.filter((other) => Math.abs(other.time - key.time) >= APART);
  return withTrack(edits, keypoint, { ...track, keys: [...others, key].sort((one, other) => one.time - other.time) });
}

export function withoutKey(edits, keypoint, time) {
  const keys = keysOf(edits, keypoint).filter((key) => Math.abs(key.time - time) >= APART);
  return withTrack(edits, keypoint, keys.length ? { ...trackOf(edits, keypoint), keys } : null);
}

export function withStyle(edits, keypoint, style) {
  const track = trackOf(edits, keypoint);
  return track ? withTrack(edits, keypoint, { ...track, ...style }) : edits;
}

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

// With every field, in one order: as the studio tells it.
function whole(edits) {
  const keypoints = edits.keypoints.map((track) => {
    const { keypoint, keys, interpolation, fade } = { ...STYLE, ...track };
    return { keypoint, keys: keys.map(({ time, x, y }) => ({ time, x, y })), interpolation, fade };
  });
  return { ...nothing(), ...edits, keypoints };
}

export class History {
  constructor(present, past = [], future = []) {
    Object.assign(this, { present, past, future });
  }

  // What `keep` put away, if it is of this clip and ends in these edits; else a new one that begins with them.
  static of(clip, edits) {
    const kept = JSON.parse(sessionStorage.getItem(STORED));
    sessionStorage.removeItem(STORED);
    const isIts = kept !== null && kept.clip === clip && same(whole(kept.present), whole(edits));
    return isIts ? new History(kept.present, kept.past, kept.future) : new History(edits);
  }

  // For the page when it is loaded again: the nearest steps, and fewer where the browser has no room.
  keep(clip) {
    for (let most = KEPT; most > 0; most >>= 1) {
      const { present } = this;
      const kept = { clip, present, past: this.past.slice(-most), future: this.future.slice(0, most) };
      try {
        sessionStorage.setItem(STORED, JSON.stringify(kept));
        return;
      } catch {
        sessionStorage.removeItem(STORED);
      }
    }
  }

  do(edits) {
    if (same(edits, this.present)) return;
    this.past.push(this.present);
    this.present = edits;
    this.future = [];
  }

  undo() {
    if (!this.past.length) return;
    this.future.unshift(this.present);
    this.present = this.past.pop();
  }

  redo() {
    if (!this.future.length) return;
    this.past.push(this.present);
    this.present = this.future.shift();
  }
}

// What a file holds, as far as the page must know; the studio checks the rest. Throws an Error with words for a person.
export function parse(text) {
  let edits;
  try {
    edits = JSON.parse(text);
  } catch (error) {
    throw new Error(`This is no JSON file: ${error.message}`);
  }
  if (!edits || edits.jokr_edits !== 1) throw new Error('These are no edits of this version: "jokr_edits": 1 is missing.');
  const found = { ...nothing(), ...edits };
  if (!Array.isArray(found.keypoints) || !found.keypoints.every(isTrack)) {
    throw new Error('"keypoints" must be a list of { "keypoint": ..., "keys": [{ "time": ..., "x": ..., "y": ... }] }.');
  }
  return found;
}

function isTrack(track) {
  const isKey = (key) => ["time", "x", "y"].every((name) => typeof key?.[name] === "number");
  return Array.isArray(track?.keys) && track.keys.every(isKey);
}

export const format = (edits) => JSON.stringify(edits, null, 2) + "\n";
