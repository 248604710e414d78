import { expect, test } from "vitest";

import { qrCode } from "../src/state/qr";

// What readers made of these codes was seen once with a reader of another house; the digest keeps them as they were.
const digest = (text: string) => {
  const rows = qrCode(text) ?? [];
  let sum = 0;
  for (const square of rows.flat()) sum = (Math.imul(sum, 31) + (square ? 7 : 3)) >>> 0;
  return [rows.length, sum];
};

test.each([[3, 21, 1055958459], [30, 25, 3487836403], [120, 41, 2406834131], [300, 61, 3826612275], [1000, 105, 1934380259], [2900, 177, 1242464691]])("the code of %s characters is the one that was read", (length, side, sum) => {
  expect(digest("mesh-llm ".repeat(400).slice(0, length))).toEqual([side, sum]);
});

test("a code is square and has its three corners", () => {
  const rows = qrCode("mesh-llm --join meshllm1-abc") ?? [];
  const last = rows.length - 1;

  expect(rows.every((row) => row.length === rows.length)).toBe(true);
  for (const [x, y] of [[0, 0], [last, 0], [0, last], [3, 3], [last - 3, 3], [3, last - 3]] as const) {
    expect(rows[y]?.[x]).toBe(true);
  }
  expect(rows[last]?.[last - 7]).toBeDefined();
});

test("a text that no code holds has none", () => {
  expect(qrCode("x".repeat(2953))).not.toBeNull();
  expect(qrCode("x".repeat(2954))).toBeNull();
});
