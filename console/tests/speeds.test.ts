import { expect, test } from "vitest";

import type { Pace } from "../src/state/speeds";
import { paced, paceWords } from "../src/state/speeds";
import { aDocument, aModel } from "./documents";

const MIB = 1024 * 1024;

function downloading(doneMib: number, stage = "downloading") {
  const progress = { stage, share: doneMib / 100, done_bytes: doneMib * MIB, total_bytes: 100 * MIB };
  return aDocument({ models: [aModel({ id: "big", phase: "downloading", progress })] });
}

function seen(...steps: [number, number][]): Pace | undefined {
  let paces: ReadonlyMap<string, Pace> = new Map();
  for (const [doneMib, atMs] of steps) paces = paced(paces, downloading(doneMib), atMs);
  return paces.get("big");
}

test("a download that goes on has a speed and an end", () => {
  expect(paceWords(seen([10, 0], [20, 2500], [50, 10_000]), 100 * MIB)).toBe("4.0 MiB/s · 12 s left");
});

test("nothing is said before anybody can know", () => {
  expect(paceWords(undefined, 1)).toBe("");
  expect(paceWords(seen([10, 0]), 100 * MIB)).toBe("");
  expect(paceWords(seen([10, 0], [11, 100]), 100 * MIB)).toBe("");
  expect(paceWords(seen([10, 0], [10, 9000]), 100 * MIB)).toBe("");
});

test("a download that begins anew is measured anew", () => {
  expect(seen([90, 0], [0, 5000], [10, 6000])).toEqual({ fromBytes: 0, fromMs: 5000, doneBytes: 10 * MIB, atMs: 6000 });
});

test("what is no download has no speed", () => {
  expect(paced(new Map(), downloading(10, "loading"), 0).size).toBe(0);
});
